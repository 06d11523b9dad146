#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "atelier/diffusion/samplers.h"
#include "atelier/inference/condition.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/model_directory.h"

namespace atelier::inference {

/// The sampling method and its settings.
struct Sampling {
    /// few_step: students in as many steps as each was trained for, `steps` at most. The last two
    /// are of diffusers directories.
    enum class Method {
        one_step,
        few_step,
        heun,
        ddim,
        stochastic,
        dpm,
        euler,
    };
    Method method = Method::one_step;
    std::int64_t steps = 18;                   // unused by one_step
    diffusion::StochasticSampling churn = {};  // used by stochastic

    /// Network evaluations per sample; of few_step those of the student that takes most.
    std::int64_t evaluations() const;
};

/// Parses "one-step", "heun", "ddim" or "stochastic". Throws core::UsageError suggesting the
/// nearest name.
Sampling::Method sampling_method(const std::string& name);
std::string name_of(Sampling::Method method);
/// The method, followed by the settings of the stochastic sampler,
/// "stochastic,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003", but not its steps.
std::string name_of(const Sampling& sampling);

/// Parses the sampling options of a user; nothing when `sampler` is empty. `sampler` may contain
/// the steps and the stochastic sampler's settings: "heun:64",
/// "stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003" (those of EDM on ImageNet-64,
/// which are also the defaults). Throws core::UsageError on an unknown sampler or setting, and on
/// steps that do not apply.
std::optional<Sampling> sampling_of(const std::string& sampler,
                                    const std::optional<std::int64_t>& steps);

/// The same for diffusers directories: "dpm++", "ddim" or "euler", of Stable Diffusion 3 only
/// "euler". Without a sampler, Stable Diffusion 1 and 2 take "dpm++", others the one that their
/// scheduler names where it is one of these; without steps 25, of Stable Diffusion 3 28.
Sampling diffusers_sampling(const models::DiffusersDirectory& directory, const std::string& sampler,
                            const std::optional<std::int64_t>& steps);

/// One step for students, or few steps where their card says so; 18 Heun steps for other models.
Sampling default_sampling(const models::ModelCard& model);

/// The largest batch that goes through a network.
constexpr std::int64_t largest_batch = 256;

/// The noise [1, shape...] of a request. Throws core::UsageError where the request's own noise has
/// another shape or too few rows.
Tensor noise_of(const SampleRequest& request, const std::vector<std::int64_t>& shape);

/// Calls `one_batch` with the noise [n, shape...] of the requests from index `first` on, at most
/// largest_batch at a time, and concatenates the results.
Tensor draw_in_batches(
    std::span<const SampleRequest> requests, const std::vector<std::int64_t>& shape,
    const std::function<Tensor(const Tensor& noise, std::size_t first)>& one_batch);

/// Samples from standard normal `z` [N,...] with the given denoiser and method, one of models'.
/// The noise that the stochastic sampler and few steps add is determined by the seed and index of
/// each of the N `requests`.
Tensor run_sampler(const diffusion::Denoiser& denoiser, const Sampling& sampling,
                   const diffusion::NoiseSchedule& noise, const Tensor& z,
                   const diffusion::Condition& condition, std::span<const SampleRequest> requests);

}  // namespace atelier::inference
