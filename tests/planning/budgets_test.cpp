#include <fstream>

#include <gtest/gtest.h>

#include "atelier/planning/run_plan.h"
#include "core/test_folder.h"

namespace atelier::planning {

namespace {

const PlannedStage& dm_of(const RunPlan& plan) {
    return *std::ranges::find(plan.stages, pipeline::StageKind::dm, &PlannedStage::kind);
}

double work_of(const RunPlan& plan) {
    double work = 0;
    for (const PlannedStage& stage : plan.stages)
        work += stage.flops * static_cast<double>(stage.all_steps());
    return work;
}

}  // namespace

TEST(PlannedBudgets, cost_as_much_as_equal_ones_and_say_whose_steps_are_how_many) {
    const core::TestFolder folder;
    std::ofstream(folder / "cells.json") << R"({"owner": [0, 1, 0, 1, 0, 1, 0, 1]})";
    const auto plan = [&](const std::string& budget, const std::string& more = "seed=1") {
        return plan_run(pipeline::load_config(
            ATELIER_SOURCE_DIR "/configs/toy2d.toml",
            {"output=" + (folder / "run").string(), "data.path=toy:ring", "partition.method=file",
             "partition.file=" + (folder / "cells.json").string(), "partition.students=2",
             "students.budget=" + budget, more}));
    };
    const RunPlan equal = plan("equal"), prior = plan("prior");
    EXPECT_TRUE(dm_of(equal).steps_of_each.empty());
    const auto steps = dm_of(prior).steps_of_each;
    ASSERT_EQ(steps.size(), 2U);
    EXPECT_NEAR(static_cast<double>(steps[0]) / static_cast<double>(steps[1]), 7.0 / 3, 0.1);
    EXPECT_EQ(dm_of(prior).all_steps(), dm_of(equal).all_steps());
    EXPECT_EQ(work_of(prior), work_of(equal));
    EXPECT_EQ(dm_of(prior).generated_images, dm_of(equal).generated_images);

    // Students of different sizes: the larger one has more of the updates, and costs more of them.
    const RunPlan sizes = plan("prior", "students.widths=[64,32]"),
                  equal_sizes = plan("equal", "students.widths=[64,32]");
    EXPECT_EQ(dm_of(sizes).steps_of_each, std::vector<std::int64_t>{steps[0]});
    EXPECT_GT(work_of(sizes), work_of(equal_sizes));
    EXPECT_NEAR(dm_of(sizes).generated_images / dm_of(equal_sizes).generated_images, 1.4, 0.05);

    const RunPlan unknown = plan("difficulty");
    EXPECT_FALSE(unknown.shares.has_value());
    EXPECT_EQ(work_of(unknown), work_of(equal));
}

}  // namespace atelier::planning
