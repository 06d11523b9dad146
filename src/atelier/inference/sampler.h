#pragma once

#include <functional>
#include <memory>

#include "atelier/inference/conditioner.h"
#include "atelier/inference/sampling.h"

namespace atelier::inference {

/// A network in memory, the engine that runs it, and the method by which it is sampled. Not
/// thread-safe.
class Sampler {
public:
    virtual ~Sampler() = default;

    using OnEvaluation = std::function<void()>;

    /// Samples in model space, [n, shape...], float32 on the CPU, in the order of the requests,
    /// whose conditions are `conditioning`; drawn in batches of at most largest_batch. Multi-step
    /// samplers of diffusers directories call `on_evaluation` after each evaluation, once for each
    /// sample of it; it may throw to stop.
    virtual Tensor draw(std::span<const SampleRequest> requests, const Conditioning& conditioning,
                        const OnEvaluation& on_evaluation = {}) const = 0;

    /// One evaluation at the highest noise level, with guidance, of standard normal `z`
    /// [N, shape...].
    virtual Tensor evaluate(const Tensor& z, const Conditioning& conditioning) const = 0;

    /// The hash of the weights. Computed on first use, since it reads all of them.
    virtual const std::string& hash() const = 0;
    virtual std::int64_t parameter_count() const = 0;
};

/// A sampler of a model directory's model. `classes`: those that may be requested; all when empty.
/// For a model conditioned on prompts `empty_prompt` [1,...] is the unconditional conditioning of
/// classifier-free guidance, which is used when `guidance` is not 1; undefined otherwise.
std::unique_ptr<Sampler> open_sampler(models::Model model, const Sampling& sampling,
                                      const Engine& engine, std::vector<std::int64_t> classes,
                                      const Tensor& empty_prompt = {}, double guidance = 1);

}  // namespace atelier::inference
