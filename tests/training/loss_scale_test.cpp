#include "atelier/training/loss_scale.h"

#include <algorithm>

#include "atelier/training/checkpoint.h"
#include "atelier/training/stepper.h"
#include "training/training_fixtures.h"

namespace atelier::training {
namespace {

/// One learner, whose gradient is 1 except at the steps at which it overflows.
class UnitGradient : public distillation::Stage {
public:
    explicit UnitGradient(std::vector<std::int64_t> overflows, double scale)
        : overflows_(std::move(overflows)), scale_(scale) {}
    std::int64_t steps() const override { return 40; }
    std::vector<distillation::Learner> learners() override {
        return {{"model",
                 &weights_,
                 {.lr = 0.1,
                  .weight_decay = 0,
                  .clip = 0,
                  .ema_decay = 0.5,
                  .more_ema_decays = {0.9},
                  .loss_scale = scale_},
                 1}};
    }
    distillation::Loss loss(std::size_t, std::int64_t step, std::int64_t, std::int64_t) override {
        const Tensor w = weights_.at("w");
        Tensor value = w.sum();
        if (std::ranges::find(overflows_, step) != overflows_.end())
            value = value + (w * 0).sqrt().sum();  // an infinite gradient of a finite loss
        return {value, {{"loss", value.item<double>()}}};
    }
    Tensor sample(const backends::Parameters& weights, const Tensor&,
                  const diffusion::Condition&) const override {
        return weights.at("w").detach().clone();
    }
    Tensor weights() const { return weights_.at("w").detach().clone(); }

private:
    std::vector<std::int64_t> overflows_;
    double scale_;
    backends::Parameters weights_{{{"w", at::ones({3})}}};
};

TEST(LossScale, halves_and_skips_on_overflow_and_doubles_after_2000_good_updates) {
    LossScale scale(1024);
    EXPECT_TRUE(scale.update(false));
    EXPECT_EQ(scale.factor(), 512);
    EXPECT_EQ(scale.skipped(), 1);
    for (int i = 0; i < 2000; ++i) EXPECT_TRUE(scale.update(true));
    EXPECT_EQ(scale.factor(), 1024);
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(scale.update(false));
    EXPECT_FALSE(scale.update(false)) << "it overflows at every scale";
}

TEST(LossScale, without_scaling_an_overflow_is_an_error) {
    LossScale none(0);
    EXPECT_FALSE(none.active());
    EXPECT_EQ(none.factor(), 1);
    EXPECT_FALSE(none.update(false));
    EXPECT_TRUE(none.scalars().empty());
}

TEST(LossScale, changes_no_update_and_skips_those_that_overflow) {
    UnitGradient plain({}, 0), scaled({}, 65536), overflowing({2}, 65536);
    Stepper a(plain), b(scaled), c(overflowing);
    for (std::int64_t step = 0; step < 4; ++step) {
        a.step(step);
        b.step(step);
        const Tensor before = overflowing.weights();
        c.step(step);
        EXPECT_EQ(overflowing.weights().equal(before), step == 2);
    }
    EXPECT_TRUE(plain.weights().equal(scaled.weights()));
    EXPECT_EQ(*c.scalars().at("loss_scale/model/skipped"), 1);
    EXPECT_EQ(*c.scalars().at("loss_scale/model/scale"), 32768);
    EXPECT_EQ(c.optimizers()[0].updates_done(), 3);
}

TEST(LossScale, is_in_the_checkpoint) {
    const core::TestFolder folder;
    const LoopSettings settings = every_step(folder.path());
    UnitGradient stage({2, 3}, 65536);
    run_stage(stage, settings);
    const Checkpoint last = *CheckpointFolder(folder / "checkpoints").latest();
    EXPECT_EQ(last.scalar("loss_scale/model/scale"), 16384);
    EXPECT_EQ(last.scalar("loss_scale/model/skipped"), 2);
    UnitGradient again({}, 65536);
    run_stage(again, settings);
    EXPECT_EQ(CheckpointFolder(folder / "checkpoints").latest()->scalar("loss_scale/model/skipped"),
              2);
}

TEST(Averages, of_several_decays_are_kept_together) {
    const core::TestFolder folder;
    UnitGradient stage({}, 0);
    const LoopResult result = run_stage(stage, every_step(folder.path()));
    ASSERT_TRUE(result.more_averages.contains("0.9"));
    // Falling weights: a higher decay lags further behind. Young averages have similar decays, so
    // the difference is small but not zero.
    const double raw = result.raw_weights.at("w")[0].item<double>(),
                 short_one = result.weights.at("w")[0].item<double>();
    const double long_one = result.more_averages.at("0.9").at("w")[0].item<double>();
    EXPECT_LT(raw, short_one);
    EXPECT_LT(short_one, long_one);
    EXPECT_TRUE(
        CheckpointFolder(folder / "checkpoints").latest()->tensors.contains("model/ema-0.9/w"));
}

TEST(Retention, keeps_as_many_checkpoints_as_configured) {
    for (const int kept : {1, 3}) {
        const core::TestFolder folder;
        LoopSettings settings = every_step(folder.path());
        settings.checkpoints_kept = kept;
        SmallStage stage(6);
        run_stage(stage, settings);
        std::size_t files = 0;
        for (const auto& entry : std::filesystem::directory_iterator(folder / "checkpoints"))
            files += entry.path().extension() == ".safetensors";
        EXPECT_EQ(files, static_cast<std::size_t>(kept));
    }
}

TEST(Probes, drawn_in_batches_are_the_same_samples) {
    const core::TestFolder folder;
    std::vector<Tensor> seen;
    for (const std::int64_t batch : {0, 3}) {
        LoopSettings settings = every_step(folder / std::to_string(batch));
        settings.probe_batch = batch;
        settings.probe_noise = values_of("probe", 0, {8, 3});
        settings.distance = [&](const Tensor& samples) {
            seen.push_back(samples.clone());
            return 1.0;
        };
        struct Echo : UnitGradient {
            using UnitGradient::UnitGradient;
            Tensor sample(const backends::Parameters&, const Tensor& noise,
                          const diffusion::Condition&) const override {
                return noise;
            }
        } stage({}, 0);
        run_stage(stage, settings);
    }
    ASSERT_EQ(seen.size(), 20u);  // ten per run
    for (std::size_t i = 0; i < 10; ++i) EXPECT_TRUE(seen[i].equal(seen[10 + i])) << i;
}

}  // namespace
}  // namespace atelier::training
