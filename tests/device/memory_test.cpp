#include <algorithm>

#include "atelier/planning/run_plan.h"
#include "cli/program.h"
#include "device/pretend_device.h"
#include "end_to_end/images.h"

/// The dry run's estimate of memory against the bytes that the pretended accelerator counts.
namespace atelier::pretend {

namespace {

using Words = std::vector<std::string>;

class Memory : public testing::TestWithParam<const char*> {
protected:
    std::string path(const std::string& name) const { return (folder_ / name).string(); }

    /// Keys of a run whose activations outweigh the rest.
    Words keys() const {
        return {"device=pretend",
                std::string("precision=") + GetParam(),
                "output=" + path("run"),
                "data.path=" + path("pictures"),
                "data.shape=[3,16,16]",
                "data.classes=8",
                "teacher.path=",
                "network.model_channels=32",
                "network.channel_mult=[1,2]",
                "network.num_blocks=2",
                "network.attention_resolutions=[8]",
                "threads=1",
                "students.threads=1",
                "students.parallel=1",
                "partition.students=1",
                "students.widths=[]",
                "students.channel_mult=[]",
                "students.depths=[]",
                "teacher.steps=1",
                "teacher.batch=24",
                "dm.steps=1",
                "dm.batch=24",
                "dm.micro_batch=0",
                "dm.fake_updates=1",
                "adm.steps=1",
                "adm.batch=24",
                "adm.micro_batch=0",
                "adm.fake_updates=1",
                "probe.every=0",
                "probe.count=16"};
    }

    /// The peak of a command on the run, less what was there before.
    std::int64_t peak_of(const std::string& command, const Words& more = {}) const {
        Words words{command, config};
        const Words own = keys();
        words.insert(words.end(), own.begin(), own.end());
        words.insert(words.end(), more.begin(), more.end());
        reset();
        const std::int64_t before = bytes_held();
        const cli::Answer answer = cli::atelier(words);
        EXPECT_EQ(answer.code, 0) << answer.error;
        return peak_bytes() - before;
    }

    void expect_near(const planning::RunPlan& plan, pipeline::StageKind kind,
                     std::int64_t counted) const {
        const auto stage = std::ranges::find(plan.stages, kind, &planning::PlannedStage::kind);
        ASSERT_NE(stage, plan.stages.end());
        const double foretold = stage->bytes(stage->micro_batch, false),
                     ratio = static_cast<double>(counted) / foretold;
        EXPECT_NEAR(ratio, 1, 0.1)
            << stage->name() << ": counted " << counted << ", foretold " << foretold;
    }

    const std::string config =
        std::string(ATELIER_SOURCE_DIR) + "/configs/imagenet64-msd4-small.toml";
    core::TestFolder folder_;
};

}  // namespace

TEST_P(Memory, of_stages_is_what_the_dry_run_foretells) {
    end_to_end::write_images(path("pictures"), 64, 16, 1);
    const planning::RunPlan plan = planning::plan_run(pipeline::load_config(config, keys()));
    using Kind = pipeline::StageKind;
    expect_near(plan, Kind::teacher, peak_of("teacher"));
    peak_of("partition");
    peak_of("pairs");
    expect_near(plan, Kind::dm, peak_of("distill", {"--stage", "dm"}));
    expect_near(plan, Kind::adm, peak_of("distill", {"--stage", "adm"}));
}

INSTANTIATE_TEST_SUITE_P(Precisions, Memory, testing::Values("fp32", "bf16"));

}  // namespace atelier::pretend
