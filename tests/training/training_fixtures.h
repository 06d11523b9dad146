#pragma once

#include <csignal>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "atelier/core/random_streams.h"
#include "atelier/diffusion/noise_levels.h"
#include "atelier/training/loop.h"

#include "core/test_folder.h"

/// Fixtures of the training tests: a small stage that uses all state the loop must keep and can be
/// made to fail.
namespace atelier::training {

inline Tensor values_of(const std::string& name, std::int64_t index, at::IntArrayRef shape) {
    core::RandomStream stream(7, name, static_cast<std::uint64_t>(index));
    return diffusion::normal_tensor(stream, shape);
}

/// Same names, types, shapes and bits; NaNs compare by bits.
inline void expect_same_bits(const backends::Parameters& a, const backends::Parameters& b) {
    EXPECT_EQ(backends::hash_of(a), backends::hash_of(b));
}

inline std::vector<std::string> lines_of(const std::filesystem::path& path) {
    std::ifstream in(path);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

struct Failures {
    std::int64_t killed_at = -1;  // throws, like a process that dies
    std::int64_t infinite_loss_at = -1;
    std::int64_t infinite_gradient_at = -1;  // of a finite loss
    std::int64_t infinite_constant_at = -1;  // a non-finite loss with finite gradients
    std::int64_t collapse_at_probe = -1;     // counted from 1
    std::int64_t signal_at = -1;             // the user presses Ctrl-C
};

/// Two learners that depend on each other (a critic with two updates per step, and a model with an
/// average), and a scalar that the losses read, so that any state lost on resume changes the bits.
class SmallStage : public distillation::Stage {
public:
    explicit SmallStage(std::int64_t steps, Failures failures = {}, std::int64_t warmup = 0)
        : steps_(steps), warmup_(warmup), failures_(failures) {}

    std::int64_t steps() const override { return steps_; }

    std::vector<distillation::Learner> learners() override {
        distillation::Optimization critic{
            .lr = 0.05, .weight_decay = 0.1, .clip = 0.5, .warmup = 4};
        distillation::Optimization model{
            .lr = 0.02, .clip = 1, .decay_from = 0.5, .final_share = 0.1, .ema_decay = 0.8};
        return {{"critic", &critic_, critic, 2, warmup_}, {"model", &model_, model, 1}};
    }

    distillation::Loss loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
                            std::int64_t) override {
        if (step == failures_.signal_at) std::raise(SIGTERM);
        if (step == failures_.killed_at) throw std::runtime_error("killed");
        const Tensor x = values_of(index == 0 ? "critic" : "model", 2 * step + inner_step, {5, 3});
        const Tensor made = at::matmul(x, model_.at("weight")) + model_.at("bias");
        const Tensor judged = at::matmul(made, critic_.at("weight"));
        Tensor value = (judged - x.sum(1, true)).square().mean() * (1 + running_);
        running_ = 0.9 * running_ + 0.01 * value.item<double>() / 3;
        if (index == 1 && step == failures_.infinite_loss_at) value = value / 0;
        if (step == failures_.infinite_constant_at)
            value = value + std::numeric_limits<double>::infinity();
        if (index == 1 && step == failures_.infinite_gradient_at)
            value = value + (model_.at("bias") * 0).sqrt().sum();
        return {value, {{index == 0 ? "critic_loss" : "loss", value.item<double>()}}};
    }

    /// The weights themselves, so that probes differ.
    Tensor sample(const backends::Parameters& weights, const Tensor&,
                  const diffusion::Condition&) const override {
        ++probes_;
        critics_at_probes_.push_back(critic_.at("weight").detach().clone());
        return weights.at("weight").detach().clone();
    }

    std::map<std::string, double*> scalars() override { return {{"running", &running_}}; }

    const std::vector<Tensor>& critics_at_probes() const { return critics_at_probes_; }

    std::vector<distillation::Finding> health(distillation::Metrics& metrics,
                                              const Tensor& probe) override {
        metrics.emplace_back("probe_mean", probe.mean().item<double>());
        if (probes_ == failures_.collapse_at_probe)
            return {{distillation::Finding::Level::collapse, "all samples are alike"}};
        return {{distillation::Finding::Level::warning, "a bit pale"}};
    }

private:
    std::int64_t steps_, warmup_;
    Failures failures_;
    double running_ = 1.0 / 3;
    mutable std::int64_t probes_ = 0;
    mutable std::vector<Tensor> critics_at_probes_;
    backends::Parameters critic_{{{"weight", values_of("critic/weight", 0, {2, 1})}}};
    backends::Parameters model_{{{"bias", values_of("model/bias", 0, {2})},
                                 {"weight", values_of("model/weight", 0, {3, 2})}}};
};

/// A checkpoint after every step, a probe every 4, a line every 3.
inline LoopSettings every_step(const std::filesystem::path& folder) {
    LoopSettings settings;
    settings.label = "small stage";
    settings.folder = folder;
    settings.checkpoint_seconds = 0;
    settings.log_every = 3;
    settings.probe_every = 4;
    settings.probe_noise = at::zeros({1});
    settings.distance = [](const Tensor& samples) { return samples.square().sum().item<double>(); };
    return settings;
}

}  // namespace atelier::training
