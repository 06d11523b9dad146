#include "atelier/pipeline/run_config.h"
#include "atelier/pipeline/make_stages.h"

#include <algorithm>
#include <fstream>
#include <map>

#include "atelier/data/memory_dataset.h"
#include "atelier/pipeline/pair_losses.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/pipeline/stages.h"
#include "core/test_folder.h"

namespace atelier::pipeline {
namespace {

using core::error_of;
using core::expect_contains;
using core::UsageError;

const std::string toy = ATELIER_SOURCE_DIR "/configs/toy2d.toml";

std::string refusal_of(const std::vector<std::string>& overrides) {
    return error_of<UsageError>([&] { load_config(toy, overrides); });
}

TEST(RunConfig, is_read_from_file_and_overrides) {
    const LoadedConfig loaded = load_config(toy, {"seed=7", "dm.steps=3", "adm.gan_weight=auto"});
    EXPECT_EQ(loaded.config.seed, 7);
    EXPECT_EQ(loaded.config.dm.steps, 3);
    EXPECT_EQ(loaded.config.network.architecture, "mlp") << "of the file";
    EXPECT_FALSE(loaded.config.adm.adversarial->gan_weight.has_value()) << "auto";
    EXPECT_EQ(load_config(toy, {R"(adm.gan_weight="0.5")"}).config.adm.adversarial->gan_weight, 0.5)
        << "as it was written before";
}

TEST(RunConfig, keys_that_are_not_there_or_out_of_range_are_named) {
    expect_contains(refusal_of({"dm.step=3"}), "dm.steps");
    expect_contains(refusal_of({"teacher.lr=fast"}), "teacher.lr");
    expect_contains(refusal_of({"partition.students=0"}), "partition.students");
    expect_contains(refusal_of({"precision=fp8"}), "precision");
    expect_contains(refusal_of({"seed"}), "seed");
}

TEST(RunConfig, former_names_are_read) {
    EXPECT_EQ(load_config(toy, {"teacher.level_mean=-0.5"}).config.teacher.p_mean, -0.5);
}

TEST(RunConfig, a_stage_depends_on_its_keys_and_no_others) {
    const auto values = [](const std::string& stage, const std::vector<std::string>& overrides) {
        return load_config(toy, overrides).values_of(stage_kind_of(stage));
    };
    for (const auto& [key, changed, same] : {std::tuple{"teacher.steps=9", "teacher", "partition"},
                                             {"partition.students=2", "partition", "teacher"},
                                             {"pairs.steps=3", "pairs", "teacher"},
                                             {"dm.lr=1e-5", "dm", "pairs"},
                                             {"adm.gan_weight=0.5", "adm", "dm"},
                                             {"evaluate.count=5", "evaluation", "teacher"}}) {
        EXPECT_NE(values(changed, {key}), values(changed, {})) << key;
        EXPECT_EQ(values(same, {key}), values(same, {})) << key;
    }
    for (const char* stage : {"teacher", "partition", "pairs", "tsm", "dm", "adm"}) {
        for (const char* key : {"output=elsewhere", "log_every=1", "checkpoint_seconds=1"})
            EXPECT_EQ(values(stage, {key}), values(stage, {})) << stage << " " << key;
    }
}

/// Points of three classes, the last without a sample.
std::shared_ptr<const data::Dataset> two_of_three_classes() {
    data::SampleSpec spec;
    spec.kind = data::SampleSpec::Kind::points;
    spec.shape = {2};
    spec.offset = {0, 0};
    return std::make_shared<data::MemoryDataset>(at::zeros({40, 2}),
                                                 std::vector<std::int64_t>(40, 1), 3, spec, 0);
}

TEST(RunConfig, pairs_with_weight_0_are_not_asked_for) {
    const std::vector<std::string> lpips{"pairs.count=0", "dm.regression=lpips",
                                         "dm.regression_weight=0", "adm.regression=lpips",
                                         "adm.regression_weight=0"};
    const LoadedConfig loaded = load_config(toy, lpips);
    EXPECT_FALSE(loaded.config.uses_lpips());
    EXPECT_FALSE(loaded.values_of(StageKind::dm).contains("lpips"));
    EXPECT_FALSE(pair_loss(loaded.config, StageKind::dm, "", at::kCPU));
    std::vector<std::string> with = lpips;
    with.emplace_back("dm.regression_weight=0.5");
    expect_contains(refusal_of(with), "a regression loss needs pairs");
}

/// Whether a loss is one of the enumeration: the compiler asks for a case of each.
bool is_pair_loss(distillation::PairLoss loss) {
    switch (loss) {
        case distillation::PairLoss::none:
        case distillation::PairLoss::pseudo_huber:
        case distillation::PairLoss::perceptual:
        case distillation::PairLoss::lpips:
            return true;
    }
    return false;
}

TEST(RunConfig, every_loss_on_pairs_has_a_name_and_a_function) {
    std::map<distillation::PairLoss, std::string> names;
    for (const auto& [name, loss] : distillation::pair_losses()) names.emplace(loss, name);
    EXPECT_EQ(names.size(), distillation::pair_losses().size());
    std::size_t all = 0;
    while (is_pair_loss(static_cast<distillation::PairLoss>(all))) ++all;
    EXPECT_EQ(names.size(), all);
    for (const auto& [loss, name] : names) {
        RunConfig config;
        config.dm.regression = loss;
        config.lpips.backbone = "no-such-file";
        // A function, or the message that names the weights that it needs.
        try {
            const bool found{pair_loss(config, StageKind::dm, "no-such-file", at::kCPU)};
            EXPECT_EQ(found, loss != distillation::PairLoss::none) << name;
        } catch (const core::Error& problem) {
            expect_contains(problem.what(), "no-such-file");
        }
    }
}

TEST(RunConfig, a_size_that_the_network_does_not_read_is_refused) {
    RunConfig config;
    data::SampleSpec spec;
    spec.shape = {3, 16, 16};
    config.network.architecture = "song_unet";
    EXPECT_EQ(teacher_json(config, spec, 4).count("patch_size"), 0U);
    config.network.patch_size = 2;
    EXPECT_EQ(
        error_of<UsageError>([&] { teacher_json(config, spec, 4); }),
        "network.patch_size = 2 is of adm_unet, dit, and song_unet does not read it; leave it out");
    config.network.architecture = "adm_unet";
    EXPECT_EQ(teacher_json(config, spec, 4).at("patch_size"), 2);
}

TEST(StudentConfig, of_a_teacher_without_its_sizes_is_an_error_that_names_them) {
    expect_contains(error_of([] { student_config({{"architecture", "mlp"}}, {}, 0); }),
                    "\"hidden\"");
    expect_contains(error_of([] { student_config(nlohmann::json::object(), {}, 0); }),
                    "\"architecture\"");
}

TEST(CheckCells, a_cell_without_samples_is_rejected_by_name) {
    LoadedConfig loaded = load_config(toy, {});
    const conditions::Partition partition{.students = 2, .method = "file", .owner = {1, 0, 1}};
    const std::string refusal = error_of<UsageError>(
        [&] { check_cells(loaded.config, partition, *two_of_three_classes()); });
    expect_contains(refusal, "student 1 (its cell has class 0, class 2 of 2)");
}

TEST(PairLabels, follow_the_prior_and_nothing_but_the_seed) {
    const LoadedConfig loaded = load_config(toy, {"pairs.count=100"});
    const conditions::Prior prior{{3, 0, 1}};
    const auto labels = pair_labels(loaded.config, prior);
    ASSERT_EQ(labels.size(), 100U);
    EXPECT_NEAR(static_cast<double>(std::ranges::count(labels, 0)), 75, 3);
    EXPECT_EQ(std::ranges::count(labels, 1), 0);
    EXPECT_EQ(pair_labels(load_config(toy, {"pairs.count=100", "dm.steps=1"}).config, prior),
              labels);
    EXPECT_NE(pair_labels(load_config(toy, {"pairs.count=100", "seed=5"}).config, prior), labels);
}

TEST(OutputFolder, that_cannot_be_written_is_rejected_and_nothing_stays) {
    const core::TestFolder folder;
    check_output_folder(folder / "new/run");
    EXPECT_EQ(folder.entries(), 0U);
    std::ofstream(folder / "file") << "no folder";
    expect_contains(error_of([&] { check_output_folder(folder / "file/run"); }),
                    (folder / "file").string());
}

}  // namespace
}  // namespace atelier::pipeline
