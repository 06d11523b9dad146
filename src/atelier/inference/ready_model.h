#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "atelier/conditions/prior.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/inference/engine.h"

namespace atelier::inference {

/// The sampling method and its settings.
struct Sampling {
    enum class Method { one_step, heun, ddim, stochastic };
    Method method = Method::one_step;
    std::int64_t steps = 18;                   // unused by one_step
    diffusion::StochasticSampling churn = {};  // used by stochastic

    /// Network evaluations per sample.
    std::int64_t evaluations() const;
};

/// One sample: seed and number determine its noise.
struct Draw {
    std::uint64_t seed = 0;
    std::int64_t number = 0;
    std::int64_t class_id = 0;
};

/// The largest batch that goes through a network.
constexpr std::int64_t largest_batch = 256;

/// A model and the engine that runs it. Not thread-safe.
class ReadyModel {
public:
    /// `classes`: those that may be requested; all when empty.
    ReadyModel(models::Model read, const Sampling& sampling, const Engine& engine,
               std::vector<std::int64_t> classes = {});
    ReadyModel(ReadyModel&&) = delete;  // the sampler refers to the model

    /// Samples in model space, [n, shape...], in order; drawn in batches of at most largest_batch.
    Tensor draw(std::span<const Draw> draws) const;

    /// The model's hash. Computed on first use, since it reads all weights.
    const std::string& hash() const;

    const models::Model model;

private:
    Tensor one_batch(const Tensor& z, std::span<const Draw> draws) const;

    mutable std::string hash_;
    Sampling sampling_;
    at::Device device_;
    std::unique_ptr<OneStep> one_step_;  // one of these two
    std::unique_ptr<diffusion::Denoiser> denoiser_;
};

/// Calls `one_batch` with the noise [n, shape...] of the draws from index `first` on, at most
/// largest_batch at a time, and concatenates the results.
Tensor draw_in_batches(
    std::span<const Draw> draws, const std::vector<std::int64_t>& shape,
    const std::function<Tensor(const Tensor& noise, std::size_t first)>& one_batch);

/// Samples from standard normal `z` [N,...] with the given denoiser and method. The noise that the
/// stochastic sampler adds is determined by the seed and number of each of the N `draws`.
Tensor run_sampler(const diffusion::Denoiser& denoiser, const Sampling& sampling,
                   const diffusion::NoiseSchedule& noise, const Tensor& z,
                   const diffusion::Condition& condition, std::span<const Draw> draws);

/// One step for students, 18 Heun steps for other models.
Sampling default_sampling(const models::Model& model);

/// The class frequencies that a model was trained on; uniform when its config has none.
conditions::Prior prior_of(const models::Model& model);

}  // namespace atelier::inference
