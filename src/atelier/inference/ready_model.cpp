#include "atelier/inference/ready_model.h"

namespace atelier::inference {

namespace {

/// Standard normal noise of one step, from each draw's own stream: [draws, shape of a sample].
Tensor added_noise(std::span<const Draw> draws, std::size_t step, at::IntArrayRef sample) {
    std::vector<Tensor> values;
    for (const Draw& draw : draws) {
        core::RandomStream stream(draw.seed, fmt::format("churn/{}", step),
                                  static_cast<std::uint64_t>(draw.number));
        values.push_back(diffusion::normal_tensor(stream, sample));
    }
    return at::stack(values);
}

}  // namespace

std::int64_t Sampling::evaluations() const {
    switch (method) {
        case Method::one_step:
            return 1;
        case Method::heun:
        case Method::stochastic:
            return 2 * steps - 1;
        case Method::ddim:
            return steps;
    }
    return 0;
}

ReadyModel::ReadyModel(models::Model read, const Sampling& sampling, const Engine& engine,
                       std::vector<std::int64_t> classes)
    : model(std::move(read)), sampling_(sampling), device_(engine.device) {
    if (sampling.method == Sampling::Method::one_step)
        one_step_ = open_one_step(model, engine, std::move(classes));
    else denoiser_ = open_denoiser(model, engine);
}

const std::string& ReadyModel::hash() const {
    if (hash_.empty()) hash_ = model.hash();
    return hash_;
}

Tensor ReadyModel::draw(std::span<const Draw> draws) const {
    return draw_in_batches(
        draws, model.network.data_shape, [&](const Tensor& noise, std::size_t first) {
            return one_batch(noise, draws.subspan(first, static_cast<std::size_t>(noise.size(0))));
        });
}

Tensor ReadyModel::one_batch(const Tensor& z, std::span<const Draw> draws) const {
    std::vector<std::int64_t> classes;
    for (const Draw& draw : draws) classes.push_back(draw.class_id);
    if (one_step_) return one_step_->draw(z, classes);
    const diffusion::Condition condition =
        diffusion::one_hot(classes, model.network.label_dim, device_);
    return run_sampler(*denoiser_, sampling_, model.noise, z.to(device_), condition, draws)
        .to(at::kCPU);
}

Tensor draw_in_batches(
    std::span<const Draw> draws, const std::vector<std::int64_t>& shape,
    const std::function<Tensor(const Tensor& noise, std::size_t first)>& one_batch) {
    const at::NoGradGuard no_gradients;
    std::vector<Tensor> batches;
    for (std::size_t first = 0; first < draws.size(); first += largest_batch) {
        std::vector<Tensor> noise;
        for (const Draw& draw :
             draws.subspan(first, std::min<std::size_t>(largest_batch, draws.size() - first))) {
            noise.push_back(diffusion::image_noise(draw.seed, draw.number, 1, shape));
        }
        batches.push_back(one_batch(at::cat(noise), first));
    }
    return at::cat(batches);
}

Tensor run_sampler(const diffusion::Denoiser& denoiser, const Sampling& sampling,
                   const diffusion::NoiseSchedule& noise, const Tensor& z,
                   const diffusion::Condition& condition, std::span<const Draw> draws) {
    if (sampling.method == Sampling::Method::one_step)
        return diffusion::sample_one_step(denoiser, z, noise, condition);
    const std::vector<double> levels = noise.sampling_levels(sampling.steps);
    switch (sampling.method) {
        case Sampling::Method::one_step:
            break;
        case Sampling::Method::heun:
            return diffusion::sample_heun(denoiser, z, levels, condition);
        case Sampling::Method::ddim:
            return diffusion::sample_ddim(denoiser, z, levels, condition);
        case Sampling::Method::stochastic:
            return diffusion::sample_heun_stochastic(
                denoiser, z, levels, condition, sampling.churn, [&](std::size_t step) {
                    return added_noise(draws, step, z.sizes().slice(1)).to(z.device());
                });
    }
    return {};
}

Sampling default_sampling(const models::Model& model) {
    return {model.is_student() ? Sampling::Method::one_step : Sampling::Method::heun, 18};
}

conditions::Prior prior_of(const models::Model& model) {
    const auto classes =
        static_cast<std::size_t>(std::max<std::int64_t>(1, model.network.label_dim));
    conditions::Prior prior{model.provenance.prior.value_or(std::vector<double>(classes, 1.0))};
    if (prior.weights.size() != classes) prior.weights.assign(classes, 1.0);
    return prior;
}

}  // namespace atelier::inference
