#include "atelier/pipeline/budgets.h"

#include <fstream>

#include <gtest/gtest.h>

#include "atelier/conditions/budget.h"
#include "atelier/core/json_file.h"
#include "atelier/pipeline/stages.h"
#include "pipeline/toy_run.h"

namespace atelier::pipeline {

namespace {

/// Of toy:ring, classes 0, 2, 4 and 6 are 14 of 20 samples.
std::vector<std::string> two_cells(const core::TestFolder& folder, const std::string& budget) {
    std::ofstream(folder / "cells.json") << R"({"owner": [0, 1, 0, 1, 0, 1, 0, 1]})";
    return {"data.path=toy:ring", "partition.method=file", "partition.students=2",
            "partition.file=" + (folder / "cells.json").string(), "students.budget=" + budget};
}

}  // namespace

TEST(Budgets, by_prior_are_the_cells_shares_of_the_data) {
    const core::TestFolder folder;
    RunContext context = run_with_teacher(folder, two_cells(folder, "prior"));
    const conditions::Prior prior = data::prior_of(*context.data());
    const double even = prior.weights[0] + prior.weights[2] + prior.weights[4] + prior.weights[6];
    const std::vector<double>& shares = context.shares();
    ASSERT_EQ(shares.size(), 2U);
    EXPECT_NEAR(shares[0], 2 * even / static_cast<double>(context.data()->size()), 1e-12);
    EXPECT_NEAR(shares[0], 1.4, 0.05);
    EXPECT_EQ(known_shares(context.config(), *context.raw_data()), shares);
    EXPECT_FALSE(std::filesystem::exists(folder / "run" / "difficulty.json"));
}

TEST(Budgets, of_another_number_of_students_than_a_partition_has_are_not_known) {
    const core::TestFolder folder;
    RunContext context = run_with_teacher(folder, two_cells(folder, "prior"));
    context.split();
    RunConfig other = context.config();
    other.partition.students = 4;
    EXPECT_EQ(known_shares(other, *context.raw_data()), std::nullopt);
}

TEST(Budgets, by_difficulty_count_the_teachers_loss_which_is_measured_once) {
    const core::TestFolder folder;
    const std::vector<std::string> config = two_cells(folder, "difficulty");
    RunContext context = run_with_teacher(folder, config);
    EXPECT_EQ(known_shares(context.config(), *context.raw_data()), std::nullopt);
    const std::vector<double> losses = class_losses(context);
    const conditions::Prior prior = data::prior_of(*context.data());
    std::vector<double> weights(2);
    for (std::size_t c = 0; c < losses.size(); ++c) weights[c % 2] += prior.weights[c] * losses[c];
    EXPECT_EQ(context.shares(), conditions::budget_shares(weights));
    EXPECT_EQ(known_shares(context.config(), *context.raw_data()), context.shares());

    // What is there is not measured again, unless it is of something else.
    const std::string file = (folder / "run" / "difficulty.json").string();
    const nlohmann::json measured = core::read_json(file);
    nlohmann::json other = measured;
    for (auto& loss : other["losses"]) loss = 1;
    core::write_json(file, other);
    EXPECT_EQ(run_with_teacher(folder, config).shares(),
              run_with_teacher(folder, two_cells(folder, "prior")).shares());
    other["of"]["data"] = "others";
    core::write_json(file, other);
    EXPECT_EQ(run_with_teacher(folder, config).shares(), context.shares());
    EXPECT_EQ(core::read_json(file), measured);
}

TEST(Budgets, tie_the_stages_of_matching_to_the_losses) {
    const core::TestFolder folder;
    std::vector<std::string> config = two_cells(folder, "difficulty");
    config.emplace_back("trunk.dm_steps=5");
    RunContext context = run_with_teacher(folder, config);
    context.shares();
    for (const StageKind stage : student_stage_kinds)
        EXPECT_EQ(context.identity(stage, 1).contents.contains("difficulty"),
                  stage != StageKind::tsm);
    EXPECT_FALSE(context.identity(StageKind::dm, trunk).contents.contains("difficulty"));
    RunContext by_prior = run_with_teacher(folder, two_cells(folder, "prior"));
    EXPECT_FALSE(by_prior.identity(StageKind::dm, 1).contents.contains("difficulty"));
}

TEST(Budgets, divide_the_steps_of_matching_and_nothing_else) {
    RunConfig config;
    config.partition.students = 3;
    config.students.widths = {8};
    config.dm.steps = 1000;
    config.adm.steps = 100;
    config.dm.student.warmup = 50;
    config.dm.fake.warmup = 100;
    config.probe.every = 250;
    const std::vector<double> shares{0.1, 0.5, 2.4};
    const RunConfig least = config.of_student(0, shares), most = config.of_student(2, shares);
    EXPECT_EQ(least.dm.steps, 100);
    EXPECT_EQ(least.adm.steps, 10);
    EXPECT_EQ(most.dm.steps, 2400);
    EXPECT_EQ(least.dm.student.warmup, 5);
    EXPECT_EQ(least.dm.fake.warmup, 10);
    EXPECT_EQ(most.dm.student.warmup, 50) << "the number of updates that Adam needs to begin with";
    EXPECT_EQ(least.probe.every, 25) << "as many probes, of which the best weights are chosen";
    EXPECT_EQ(most.probe.every, 600);
    EXPECT_EQ(least.tsm.steps, config.tsm.steps);
    EXPECT_EQ(config.of_student(2, {}).dm.steps, 1000);

    std::int64_t dm = 0;
    for (const Stage& stage : stages(config, shares)) {
        if (stage.kind == StageKind::dm) dm += stage.work->steps;
        if (stage.kind == StageKind::tsm) {
            EXPECT_EQ(stage.work->steps, config.tsm.steps);
        }
    }
    EXPECT_EQ(dm, 3000);
    config.trunk.dm_steps = 70;
    config.students.widths.clear();
    for (const Stage& stage : stages(config, shares)) {
        if (stage.student == trunk) {
            EXPECT_EQ(stage.work->steps, 70);
        }
    }
}

TEST(Budgets, do_not_matter_to_the_trunk) {
    RunConfig config;
    config.trunk.dm_steps = 5;
    const nlohmann::json equal = trunk_values_of(config, StageKind::dm);
    config.students.budget = Budget::prior;
    EXPECT_EQ(trunk_values_of(config, StageKind::dm), equal);
}

}  // namespace atelier::pipeline
