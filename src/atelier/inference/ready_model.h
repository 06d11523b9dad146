#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "atelier/conditions/prior.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/inference/engine.h"

namespace atelier::inference {

/// How samples are drawn.
struct Sampling {
    enum class Method { one_step, heun, ddim, stochastic };
    Method method = Method::one_step;
    std::int64_t steps = 18;     // of all but one_step
    diffusion::Churn churn = {};  // of stochastic

    /// Network evaluations a sample.
    std::int64_t evaluations() const;
};

/// One sample: its noise follows from seed and number.
struct Draw {
    std::uint64_t seed = 0;
    std::int64_t number = 0;
    std::int64_t class_id = 0;
};

/// Samples that go through a network together at most.
constexpr std::int64_t largest_batch = 256;

/// A model and the engine that runs it. One thread at a time.
class ReadyModel {
public:
    /// `classes`: those that will be asked for; without, all.
    ReadyModel(models::Model read, const Sampling& sampling, const Engine& engine, std::vector<std::int64_t> classes = {});
    ReadyModel(ReadyModel&&) = delete;  // the sampler looks into the model

    /// Samples in model space, [n, shape...], in order; drawn in batches of at most largest_batch.
    Tensor draw(std::span<const Draw> draws) const;

    /// The model's hash, computed when it is first asked for: it reads all weights.
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

/// What `one_batch` makes of the draws' noise [n, shape...], of those from number `first` on, in order; of at most largest_batch of them at once.
Tensor drawn_in_batches(std::span<const Draw> draws, const std::vector<std::int64_t>& shape, const std::function<Tensor(const Tensor& noise, std::size_t first)>& one_batch);

/// What `denoiser` makes of standard normal `z` [N,...], by the method asked for. What the stochastic sampler adds follows from the seed and number of
/// each of the N `draws`.
Tensor drawn_by(const diffusion::Denoiser& denoiser, const Sampling& sampling, const diffusion::NoiseRange& range, const Tensor& z,
                const diffusion::Condition& condition, std::span<const Draw> draws);

/// One step for students, 18 Heun steps for other models.
Sampling usual_sampling(const models::Model& model);

/// The classes that a model was trained on and how often it saw them; evenly all, where it does not say.
conditions::Prior prior_of(const models::Model& model);

}  // namespace atelier::inference
