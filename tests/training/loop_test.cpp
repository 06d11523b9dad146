#include "atelier/training/loop.h"

#include <cmath>

#include "atelier/core/json_file.h"
#include "atelier/training/checkpoint.h"
#include "atelier/training/optimizer.h"
#include "atelier/training/stepper.h"

#include "training/training_fixtures.h"

namespace atelier::training {
namespace {

namespace fs = std::filesystem;

class Loop : public ::testing::Test {
protected:
    Loop() : settings(every_step(folder.path())) {}

    LoopResult train(std::int64_t steps, Failures failures = {}) const {
        SmallStage stage(steps, failures);
        return run_stage(stage, settings);
    }

    /// The error that stopped the run; the checkpoints stay those before it.
    std::string stopped(Failures failures) const {
        return core::error_of([&] { train(12, failures); });
    }

    core::TestFolder folder;
    LoopSettings settings;
};

TEST_F(Loop, learners_are_updated_in_order) {
    settings.folder = folder / "loop";
    const LoopResult found = train(3);

    SmallStage stage(3);  // the same by hand
    auto learners = stage.learners();
    for (auto& learner : learners) learner.parameters->require_gradients(true);
    Optimizer critic(*learners[0].parameters, learners[0].optimization, 6),
        model(*learners[1].parameters, learners[1].optimization, 3);
    const auto update = [&](Optimizer& optimizer, std::size_t index, std::int64_t step,
                            std::int64_t inner_step) {
        optimizer.update(torch::autograd::grad({stage.loss(index, step, inner_step, 0).value},
                                               learners[index].parameters->list()));
    };
    for (std::int64_t step = 0; step < 3; ++step) {
        update(critic, 0, step, 0);
        update(critic, 0, step, 1);
        update(model, 1, step, 0);
    }
    expect_same_bits(found.weights, model.averaged());
    expect_same_bits(found.raw_weights, *learners[1].parameters);
    EXPECT_FALSE(at::equal(found.weights.at("weight"), found.raw_weights.at("weight")));
}

TEST_F(Loop, a_non_finite_loss_stops_with_the_cause_the_step_and_the_last_good_checkpoint) {
    const std::string message = stopped({.infinite_loss_at = 5});
    for (const char* part :
         {"small stage", "the loss of model", "inf", "step 5", "step-000000000005.safetensors"}) {
        core::expect_contains(message, part);
    }
    EXPECT_EQ(CheckpointFolder(folder / "checkpoints").latest()->step, 5);
}

TEST_F(Loop, an_infinite_loss_with_finite_gradients_updates_neither_the_learner_nor_later_ones) {
    for (const std::int64_t bad : {0, 1}) {
        SmallStage stage(4, {.infinite_constant_at = bad});
        Stepper stepper(stage);
        for (std::int64_t step = 0; step < bad; ++step) stepper.step(step);
        std::vector<backends::Parameters> before;
        for (const Optimizer& optimizer : stepper.optimizers())
            before.push_back(optimizer.state().clone());
        core::expect_contains(core::error_of([&] { stepper.step(bad); }),
                              "the loss of critic became inf");
        for (std::size_t i = 0; i < before.size(); ++i)
            expect_same_bits(stepper.optimizers()[i].state(), before[i]);
    }
}

TEST_F(Loop, a_critic_warms_up_alone_before_the_first_step) {
    SmallStage stage(3, {}, 5);
    const LoopResult found = run_stage(stage, settings);

    SmallStage same(3, {}, 5);  // by hand
    auto learners = same.learners();
    for (auto& learner : learners) learner.parameters->require_gradients(true);
    Optimizer critic(*learners[0].parameters, learners[0].optimization, 3 * 2 + 5),
        model(*learners[1].parameters, learners[1].optimization, 3);
    const auto update = [&](Optimizer& optimizer, std::size_t index, std::int64_t step,
                            std::int64_t inner_step) {
        optimizer.update(torch::autograd::grad({same.loss(index, step, inner_step, 0).value},
                                               learners[index].parameters->list()));
    };
    for (std::int64_t i = 0; i < 5; ++i) update(critic, 0, 3 + i / 2, i % 2);
    for (std::int64_t step = 0; step < 3; ++step) {
        update(critic, 0, step, 0);
        update(critic, 0, step, 1);
        update(model, 1, step, 0);
    }
    expect_same_bits(found.raw_weights, *learners[1].parameters);
    expect_same_bits(found.others.at("critic"), *learners[0].parameters);
}

TEST_F(Loop, a_non_finite_gradient_stops_too) {
    const std::string message = stopped({.infinite_gradient_at = 0});
    for (const char* part : {"the gradient of model", "nan", "step 0", "none yet"})
        core::expect_contains(message, part);
    EXPECT_FALSE(CheckpointFolder(folder / "checkpoints").latest().has_value());
}

TEST_F(Loop, the_cause_of_a_stop_does_not_affect_the_resumed_run) {
    stopped({.infinite_loss_at = 5});
    stopped({.infinite_gradient_at = 8});
    const LoopResult retried = train(12);
    settings.folder = folder / "unbroken";
    expect_same_bits(retried.raw_weights, train(12).raw_weights);
}

TEST_F(Loop, a_collapse_stops_before_a_checkpoint_is_saved) {
    const std::string message = stopped({.collapse_at_probe = 2});  // at step 8
    for (const char* part : {"all samples are alike", "step-000000000007.safetensors"})
        core::expect_contains(message, part);
    EXPECT_EQ(CheckpointFolder(folder / "checkpoints").latest()->step, 7);
}

TEST_F(Loop, a_health_warning_is_logged_and_training_continues) {
    testing::internal::CaptureStderr();
    train(4);
    core::expect_contains(testing::internal::GetCapturedStderr(), "small stage step 4: a bit pale");
}

/// Prescribed distances, and the weights at each probe.
class KeepBest : public Loop {
protected:
    LoopResult train_with(const std::vector<double>& distances) {
        settings.folder = folder / std::to_string(++runs);
        settings.distance = [this, distances](const Tensor& samples) {
            probed.push_back(samples);
            return distances.at(probed.size() - 1);
        };
        probed.clear();
        return train(4 * static_cast<std::int64_t>(distances.size()));
    }

    int runs = 0;
    std::vector<Tensor> probed;
};

TEST_F(KeepBest, all_learners_are_of_the_step_of_the_lowest_distance) {
    settings.keep_best = true;
    std::int64_t probes = 0;
    settings.distance = [&](const Tensor&) {
        return std::vector<double>{5, 2, 3}.at(static_cast<std::size_t>(probes++));
    };
    SmallStage stage(12);
    const LoopResult result = run_stage(stage, settings);
    ASSERT_EQ(stage.critics_at_probes().size(), 3U);
    EXPECT_TRUE(result.others_match);
    EXPECT_TRUE(at::equal(result.others.at("critic").at("weight"), stage.critics_at_probes()[1]));
    EXPECT_FALSE(at::equal(result.others.at("critic").at("weight"), stage.critics_at_probes()[2]));

    settings.folder = folder / "last";
    settings.keep_best = false;
    probes = 0;
    SmallStage other(12);
    const LoopResult last = run_stage(other, settings);
    EXPECT_TRUE(at::equal(last.others.at("critic").at("weight"), other.critics_at_probes()[2]));
}

TEST_F(KeepBest, the_weights_of_the_lowest_distance_are_the_result) {
    settings.keep_best = true;
    const LoopResult result = train_with({5, 2, 3});
    EXPECT_EQ(result.best_step, 8);
    EXPECT_EQ(result.best_distance, 2);
    EXPECT_TRUE(at::equal(result.weights.at("weight"), probed[1]));
    EXPECT_FALSE(at::equal(result.weights.at("weight"), probed[2]));
}

TEST_F(KeepBest, of_equal_distances_the_first_is_best) {
    EXPECT_EQ(train_with({2, 2, 2}).best_step, 4);
}

TEST_F(KeepBest, without_it_the_last_weights_are_the_result_and_the_best_step_is_only_reported) {
    const LoopResult result = train_with({5, 2, 3});
    EXPECT_EQ(result.best_step, 8);
    EXPECT_TRUE(at::equal(result.weights.at("weight"), probed[2]));
}

TEST_F(KeepBest, a_nan_distance_is_never_the_best) {
    settings.keep_best = true;
    const double none = std::nan("");
    EXPECT_EQ(train_with({5, 2, none}).best_step, 8);
    EXPECT_EQ(train_with({none, 2, 3}).best_step, 8);
    EXPECT_EQ(train_with({2, none, 3}).best_step, 4);
    const LoopResult nothing = train_with({none, none});
    EXPECT_TRUE(std::isnan(nothing.best_distance));
    EXPECT_TRUE(at::equal(nothing.weights.at("weight"), probed[1]));
}

TEST_F(Loop, without_probe_noise_nothing_is_measured) {
    settings.probe_noise = Tensor();
    settings.distance = [](const Tensor&) -> double { throw std::runtime_error("measured"); };
    const LoopResult result = train(8);
    EXPECT_TRUE(std::isnan(result.best_distance));
    EXPECT_EQ(result.best_step, 0);
}

TEST_F(Loop, a_log_line_holds_losses_gradients_and_probe_metrics) {
    settings.log_every = 2;
    train(6);
    const auto lines = lines_of(folder / "metrics.jsonl");
    ASSERT_EQ(lines.size(), 3U);
    const auto usual = core::parse_json(lines[0], "line"),
               probed = core::parse_json(lines[1], "line");
    const auto last = core::parse_json(lines[2], "line");
    for (const char* key : {"step", "critic_loss", "critic_gradient", "loss", "model_gradient"})
        EXPECT_TRUE(usual.contains(key)) << key;
    for (const char* key : {"probe_distance", "probe_mean"}) {
        EXPECT_FALSE(usual.contains(key)) << key;
        EXPECT_TRUE(probed.contains(key)) << key;
        EXPECT_TRUE(last.contains(key)) << "the last step is always probed";
    }
}

TEST_F(Loop, an_image_is_drawn_at_each_probe) {
    std::vector<std::string> stems;
    settings.draw = [&](const fs::path& stem, const Tensor&) {
        stems.push_back(stem.lexically_relative(folder.path()).string());
    };
    train(6);
    EXPECT_EQ(stems, (std::vector<std::string>{"samples/step-000004", "samples/step-000006"}));
}

}  // namespace
}  // namespace atelier::training
