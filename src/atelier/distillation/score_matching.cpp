#include "atelier/distillation/score_matching.h"

#include "atelier/diffusion/samplers.h"
#include "atelier/distillation/health.h"

namespace atelier::distillation {

ScoreMatching::ScoreMatching(const networks::Network& network, backends::Parameters& parameters,
                             const diffusion::Denoiser* teacher, BatchSource real,
                             ScoreMatchingSettings settings)
    : network_(network),
      parameters_(parameters),
      conditions_(
          settings.conditions.value_or(diffusion::ConditionTable::classes(network.label_dim))),
      teacher_(teacher),
      real_(std::move(real)),
      settings_(std::move(settings)) {}

std::vector<Learner> ScoreMatching::learners() {
    return {{"model", &parameters_, settings_.optimization, 1}};
}

std::vector<std::int64_t> ScoreMatching::with_dropout(const std::vector<std::int64_t>& labels,
                                                      std::int64_t step) const {
    std::vector<std::int64_t> kept = labels;
    if (settings_.condition_dropout <= 0) return kept;
    core::RandomStream chance(settings_.seed, settings_.stream + "/dropout",
                              static_cast<std::uint64_t>(step));
    for (std::int64_t& label : kept) {
        if (chance.uniform() < settings_.condition_dropout) label = -1;
    }
    return kept;
}

Loss ScoreMatching::loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
                         std::int64_t micro_batch) {
    draws_.begin(index, step, inner_step);
    const LabelledBatch& batch = draws_.once("real", [&] { return real_(step); });
    const std::int64_t n = batch.samples.size(0);
    const at::Device device = parameters_.list().front().device();
    const Tensor& sigma = draws_.once("sigma", [&] {
        core::RandomStream levels(settings_.seed, settings_.stream + "/sigma",
                                  static_cast<std::uint64_t>(step));
        return settings_.noise.training_levels(levels, n).to(device);
    });
    const Tensor& z = draws_.once("noise", [&] {
        core::RandomStream noise(settings_.seed, settings_.stream + "/noise",
                                 static_cast<std::uint64_t>(step));
        return diffusion::normal_tensor(noise, batch.samples.sizes()).to(device);
    });
    const MicroBatch rows = micro_batch_of(n, settings_.micro_batch, micro_batch);
    const diffusion::EdmDenoiser model(network_, parameters_, settings_.noise, settings_.compute);
    const Tensor value = score_matching_loss(
        model, teacher_, rows.of(batch.samples).to(device), rows.of(sigma), rows.of(z),
        conditions_.of(rows.of(with_dropout(batch.labels, step)), device), settings_.noise);
    return {value, {{"loss", value.item<double>()}}, rows.weight};
}

Tensor ScoreMatching::sample(const backends::Parameters& weights, const Tensor& noise,
                             const diffusion::Condition& condition) const {
    const diffusion::EdmDenoiser model(network_, weights, settings_.noise, settings_.compute);
    return diffusion::sample_heun(
        model, noise, settings_.noise.sampling_levels(settings_.sampler_steps), condition);
}

std::vector<Finding> ScoreMatching::health(Metrics& metrics, const Tensor&) {
    const double loss = metric(metrics, "loss");
    if (!(loss > 2 * untrained_loss)) return {};
    return {{Finding::Level::warning,
             fmt::format("the loss is {:.3g}, and a network that has learned nothing has {}: "
                         "training has diverged; lower the learning rate",
                         loss, untrained_loss)}};
}

Tensor score_matching_loss(const diffusion::Denoiser& model, const diffusion::Denoiser* teacher,
                           const Tensor& x, const Tensor& sigma, const Tensor& z,
                           const diffusion::Condition& condition,
                           const diffusion::NoiseSchedule& noise) {
    const Tensor x_t = x + diffusion::expand_like(sigma, x) * z;
    Tensor target = x;
    if (teacher) {
        at::NoGradGuard no_gradients;
        target = teacher->denoise(x_t, sigma, condition);
    }
    const Tensor weight = diffusion::expand_like(noise.loss_weight(sigma), x);
    return (weight * (model.denoise(x_t, sigma, condition) - target).square()).mean();
}

}  // namespace atelier::distillation
