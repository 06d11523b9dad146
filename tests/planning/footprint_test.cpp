#include "atelier/planning/footprint.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "atelier/planning/run_plan.h"
#include "core/test_folder.h"

namespace atelier::planning {

namespace {

using distillation::MatchingLoss;
using distillation::MatchingSettings;
using distillation::PairLoss;

networks::Network small_unet() {
    const nlohmann::json config{{"architecture", "adm_unet"},
                                {"resolution", 16},
                                {"channels", 3},
                                {"classes", 4},
                                {"model_channels", 32},
                                {"channel_mult", {1, 2}},
                                {"num_blocks", 1},
                                {"attention_resolutions", nlohmann::json::array()}};
    return networks::make_network(core::JsonObject(config, "config.json"));
}

/// Floating-point operations of a step, and bytes of a stage.
std::pair<double, double> cost_of(const MatchingSettings& settings,
                                  const DistillationRun& run = {}) {
    const networks::Network network = small_unet();
    const ExecutionMode mode;
    const DistillationCost cost = distillation_cost(settings, network, network, mode, run);
    return {distillation_flops(cost, 8, 5, mode), distillation_bytes(cost, {.samples = 8}, mode)};
}

}  // namespace

TEST(DistillationCost, has_work_and_memory_for_every_term_of_the_loss) {
    const auto [work, bytes] = cost_of({});
    const std::vector<std::pair<const char*, MatchingSettings>> terms{
        {"score identity", {.loss = MatchingLoss::score_identity}},
        {"pairs", {.regression = PairLoss::pseudo_huber}},
        {"GAN", {.adversarial = distillation::AdversarialSettings{}}}};
    for (const auto& [name, settings] : terms) {
        const auto [more_work, more_bytes] = cost_of(settings);
        EXPECT_GT(more_work, work) << name;
        EXPECT_GE(more_bytes, bytes) << name;
    }
    EXPECT_GT(cost_of({.adversarial = distillation::AdversarialSettings{}}).second, bytes);
    EXPECT_GT(cost_of({}, {.guidance = 2}).first, work);
    EXPECT_GT(cost_of({.student = {.ema_decay = 0.9}}).second, bytes);
    EXPECT_GT(cost_of({}, {.probes = true}).second, bytes);
    EXPECT_LT(cost_of({}, {.lora_rank = 4}).second, bytes);
}

TEST(DistillationCost, of_pairs_with_weight_0_is_nothing) {
    EXPECT_EQ(cost_of({.regression = PairLoss::lpips, .regression_weight = 0}), cost_of({}));
    const auto plan = [](const std::string& weight) {
        return plan_run(pipeline::load_config(
            ATELIER_SOURCE_DIR "/configs/toy2d.toml",
            {"dm.regression=pseudo_huber", "dm.regression_weight=" + weight, "pairs.count=64"}));
    };
    const auto dm_of = [](const RunPlan& of) {
        return *std::ranges::find(of.stages, pipeline::StageKind::dm, &PlannedStage::kind);
    };
    const PlannedStage with = dm_of(plan("0.5")), without = dm_of(plan("0"));
    EXPECT_GT(with.real_images, 0);
    EXPECT_EQ(without.real_images, 0);
    EXPECT_GT(with.flops, without.flops);
}

}  // namespace atelier::planning
