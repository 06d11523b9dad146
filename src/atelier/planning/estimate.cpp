#include "atelier/planning/estimate.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "atelier/core/error.h"
#include "atelier/core/signals.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/inference/device.h"
#include "atelier/pipeline/pair_losses.h"
#include "atelier/training/stepper.h"

namespace atelier::planning {

namespace {

constexpr double matmul_rate_fraction =
    0.5;  // of the rate of matrix products, assumed for a U-Net's step (docs/recipes.md)
constexpr double longest_trial_seconds = 5;    // expected for a step that is still measured
constexpr double enough_seconds = 0.2;         // of steps that are measured
constexpr std::int64_t trial_steps = 16;       // the warm-up among them
constexpr double trial_memory_fraction = 0.5;  // a step that is expected to need less is measured

using Clock = std::chrono::steady_clock;

double time_of(const std::function<void()>& work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// FLOP/s of matrix products in the run's precision.
double measure_rate(const pipeline::RunConfig& config) {
    at::NoGradGuard no_gradients;
    constexpr std::int64_t side = 1024, runs = 3;
    const auto type = config.compute().type.value_or(at::kFloat);
    const at::Device device(config.device);
    const Tensor a = at::ones({side, side}, at::TensorOptions().device(device).dtype(type));
    double least = 1e9;
    for (std::int64_t i = 0; i <= runs; ++i)
        least = std::min(least, time_of([&] { at::matmul(a, a)[0][0].item<float>(); }));
    return 2.0 * side * side * side / least;
}

models::Model random_model(const PlannedNetwork& network, at::Device device) {
    models::Model model = models::init_model(network.config, 0);
    model.parameters = model.parameters.to(device);
    return model;
}

/// Measures the seconds of one step of a stage on noise, after a warm-up step.
class Trial {
public:
    Trial(const pipeline::RunConfig& config, const RunPlan& plan, const PlannedStage& stage)
        : config_(config),
          stage_(stage),
          device_(config.device),
          teacher_(random_model(plan.networks.front(), device_)),
          student_(random_model(plan.networks[stage.network], device_)),
          classes_(plan.label_width) {
        if (const auto type = config.compute().type)
            teacher_.parameters = teacher_.parameters.cast_weights(*type);
    }

    double seconds() {
        return stage_.fake_updates == 0 ? score_matching_seconds() : distillation_seconds();
    }

private:
    double measure(distillation::Stage& stage) const {
        training::Stepper stepper(stage);
        stepper.step(0).read();
        // One short step is timed poorly.
        std::vector<double> seconds;
        double sum = 0;
        while (seconds.empty() || (sum < enough_seconds && std::ssize(seconds) + 1 < trial_steps)) {
            if (core::stop_requested()) throw core::Interrupted("interrupted; nothing was written");
            const auto step = static_cast<std::int64_t>(seconds.size() + 1);
            seconds.push_back(time_of([&] { stepper.step(step).read(); }));
            sum += seconds.back();
        }
        std::ranges::nth_element(seconds, seconds.begin() + std::ssize(seconds) / 2);
        return seconds[seconds.size() / 2];
    }

    distillation::BatchSource noise() const {
        return [this](std::int64_t step) {
            std::vector<std::int64_t> labels;
            for (std::int64_t i = 0; i < stage_.batch; ++i)
                labels.push_back(i % std::max<std::int64_t>(1, classes_));
            return distillation::LabelledBatch{
                diffusion::image_noise(1, step * stage_.batch, stage_.batch,
                                       student_.network.data_shape),
                labels};
        };
    }

    double score_matching_seconds() {
        const auto teacher = teacher_.denoiser(config_.compute());
        const bool tsm = stage_.kind == pipeline::StageKind::tsm;
        distillation::ScoreMatching matching(
            {student_.network, student_.parameters, tsm ? &teacher : nullptr, noise(),
             conditions()},
            {.steps = trial_steps, .batch = stage_.batch, .micro_batch = stage_.micro_batch},
            context());
        return measure(matching);
    }

    double distillation_seconds() {
        backends::Parameters fake = student_.parameters.clone();
        if (stage_.kind == pipeline::StageKind::adm)
            fake.merge(distillation::init_head(student_.network, 0).to(device_), "");
        distillation::MatchingSettings settings = config_.matching(stage_.kind);
        settings.steps = trial_steps;
        const auto pairs = [this, real = noise()](std::int64_t step) {
            const distillation::LabelledBatch batch = real(step);
            return distillation::PairBatch{batch.samples, batch.samples, batch.labels};
        };
        const auto teacher = teacher_.denoiser(config_.compute());
        const auto classes = static_cast<std::size_t>(std::max<std::int64_t>(1, classes_));
        distillation::DistributionMatching matching({student_.network,
                                                     student_.parameters,
                                                     student_.network,
                                                     fake,
                                                     teacher,
                                                     {std::vector<double>(classes, 1.0)},
                                                     noise(),
                                                     pairs,
                                                     pair_loss(),
                                                     conditions()},
                                                    settings, context());
        return measure(matching);
    }

    /// Noise in place of token states, for networks that attend to those.
    std::optional<diffusion::ConditionTable> conditions() const {
        const networks::Network& network = student_.network;
        if (network.tokens == 0) return std::nullopt;
        const Tensor rows =
            diffusion::image_noise(2, 0, classes_ + 1, {network.tokens, network.label_dim});
        return diffusion::ConditionTable::embeddings(rows.narrow(0, 0, classes_), rows[classes_]);
    }

    distillation::StageContext context() const {
        return {student_.noise, config_.compute(), static_cast<std::uint64_t>(config_.seed),
                "dry-run"};
    }

    /// Pseudo-Huber where the weights of the configured loss do not exist yet.
    distillation::RegressionLoss pair_loss() const {
        try {
            return pipeline::pair_loss(config_, stage_.kind,
                                       config_.probe.classifier.empty()
                                           ? config_.evaluation.classifier
                                           : config_.probe.classifier,
                                       device_);
        } catch (const core::Error&) {
            return distillation::pseudo_huber;
        }
    }

    const pipeline::RunConfig& config_;
    const PlannedStage& stage_;
    at::Device device_;
    models::Model teacher_, student_;
    std::int64_t classes_;
};

}  // namespace

double available_memory(const pipeline::RunConfig& config, double given_gib) {
    if (given_gib > 0) return given_gib * gib;
    if (config.device_memory > 0) return config.device_memory * gib;
    if (config.device != "cpu")
        return inference::has_device(config.device) ? inference::memory_of(config.device) : 0;
    double memory = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
                    static_cast<double>(::sysconf(_SC_PAGESIZE));
    std::ifstream limit("/sys/fs/cgroup/memory.max");
    double quota = 0;
    if (limit >> quota) memory = std::min(memory, quota);
    return memory;
}

std::int64_t largest_micro_batch(const PlannedStage& stage, std::int64_t first, double base_bytes,
                                 double memory, bool recompute) {
    for (std::int64_t n = first; n >= 1; n /= 2) {
        if (base_bytes + stage.bytes(n, recompute) <= memory) return n;
    }
    return 0;
}

DeviceProfile profile_device(const pipeline::RunConfig& config, double memory_gib, double tflops) {
    DeviceProfile device{.memory = available_memory(config, memory_gib),
                         .base_bytes = own_bytes(execution_mode(config, false))};
    if (tflops > 0) {
        device.rate = tflops * 1e12;
        device.rate_description = fmt::format("{} TFLOP/s, as given", tflops);
    } else if (inference::has_device(config.device)) {
        at::set_num_threads(static_cast<int>(config.threads));
        device.rate = matmul_rate_fraction * measure_rate(config);
        device.rate_description = fmt::format(
            "{:.3g} TFLOP/s, half of what matrix products reach here", device.rate / 1e12);
        device.is_here = true;
    } else {
        device.rate_description = fmt::format(
            "no device {} here, so times are not estimated; give --tflops", config.device);
    }
    return device;
}

Estimate estimate(const pipeline::RunConfig& config, const RunPlan& plan, const PlannedStage& stage,
                  const DeviceProfile& device) {
    if (core::stop_requested()) throw core::Interrupted("interrupted; nothing was written");
    Estimate estimate;
    const double base = device.base_bytes;
    const bool recompute = config.activation_checkpointing;
    estimate.bytes = base + stage.bytes(stage.micro_batch, recompute);
    estimate.bytes_toggled = base + stage.bytes(stage.micro_batch, !recompute);
    if (device.memory > 0 && estimate.bytes > device.memory)
        estimate.fitting_micro_batch =
            largest_micro_batch(stage, stage.micro_batch, base, device.memory, recompute);
    if (device.rate > 0) estimate.step_seconds = stage.flops / device.rate;
    estimate.from = "work and rate";
    const bool fits = estimate.bytes < trial_memory_fraction * device.memory;
    if (device.is_here && fits && estimate.step_seconds < longest_trial_seconds) {
        at::set_num_threads(static_cast<int>(
            stage.kind == pipeline::StageKind::teacher ? config.threads : config.students.threads));
        estimate.step_seconds = Trial(config, plan, stage).seconds();
        estimate.from = "a step, measured";
    }
    return estimate;
}

}  // namespace atelier::planning
