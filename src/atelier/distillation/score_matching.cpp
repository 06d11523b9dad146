#include "atelier/distillation/score_matching.h"

#include "atelier/backends/torch/transfer.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/distillation/health.h"

namespace atelier::distillation {

ScoreMatching::ScoreMatching(ScoreMatchingInputs inputs, ScoreMatchingSettings settings,
                             StageContext context)
    : inputs_(std::move(inputs)),
      settings_(std::move(settings)),
      context_(std::move(context)),
      conditions_(inputs_.conditions.value_or(
          diffusion::ConditionTable::classes(inputs_.network.label_dim))) {}

std::vector<Learner> ScoreMatching::learners() {
    return {{"model", &inputs_.parameters, settings_.optimization, 1, 0, context_.compute.type}};
}

std::vector<std::int64_t> ScoreMatching::with_dropout(const std::vector<std::int64_t>& labels,
                                                      std::int64_t step) const {
    std::vector<std::int64_t> kept = labels;
    if (settings_.condition_dropout <= 0) return kept;
    core::RandomStream chance(context_.seed, context_.stream + "/dropout",
                              static_cast<std::uint64_t>(step));
    for (std::int64_t& label : kept) {
        if (chance.uniform() < settings_.condition_dropout) label = -1;
    }
    return kept;
}

ScoreMatching::Draws ScoreMatching::draw(std::int64_t step) const {
    const at::Device device = inputs_.parameters.list().front().device();
    const auto stream = [&](const char* what) {
        return core::RandomStream(context_.seed, context_.stream + what,
                                  static_cast<std::uint64_t>(step));
    };
    Draws draws{inputs_.real(step), {}, stream("/noise")};
    core::RandomStream levels = stream("/sigma");
    draws.sigma = backends::to_device(
        context_.noise.training_levels(levels, draws.real.samples.size(0)), device);
    return draws;
}

Loss ScoreMatching::loss(std::size_t, std::int64_t step, std::int64_t inner_step,
                         std::int64_t micro_batch) {
    const Draws& draws = draws_.of(step, inner_step, [&] { return draw(step); });
    const LabelledBatch& batch = draws.real;
    const at::Device device = draws.sigma.device();
    const MicroBatch rows =
        micro_batch_of(batch.samples.size(0), settings_.micro_batch, micro_batch);
    const diffusion::EdmDenoiser model(inputs_.network, inputs_.parameters, context_.noise,
                                       context_.compute);
    const Tensor noise =
        diffusion::normal_rows(std::span(&draws.noise, 1), batch.samples.sizes().slice(1),
                               rows.first, rows.count, device)[0];
    const Tensor value = score_matching_loss(
        model, inputs_.teacher, backends::to_device(rows.of(batch.samples), device),
        rows.of(draws.sigma), noise,
        conditions_.of(rows.of(with_dropout(batch.labels, step)), device), context_.noise);
    return {value, {{"loss", value}}, rows.weight};
}

Tensor ScoreMatching::sample(const backends::Parameters& weights, const Tensor& noise,
                             const diffusion::Condition& condition) const {
    const diffusion::EdmDenoiser model(inputs_.network, weights, context_.noise, context_.compute);
    return diffusion::sample_heun(
        model, noise, context_.noise.sampling_levels(settings_.sampler_steps), condition);
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
