#pragma once

#include <functional>
#include <span>

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// Samples [N,...] of a one-step student: D(initial_noise_scale z; sigma_max, c). `noise` z [N,...]
/// is standard normal.
Tensor sample_one_step(const Denoiser& student, const Tensor& noise, const NoiseSchedule& schedule,
                       const Condition& condition);

/// Samples [N,...] of a student of levels.size() evaluations: it denoises as in one step, then
/// alternately noise is added to its estimate and that is denoised again (consistency models' way,
/// Song et al. 2023, algorithm 1; DMD2's): x <- D(x + levels[k] z_k; levels[k], c). `levels` are
/// NoiseSchedule::student_levels; `step_noise(k)`, for k from 1, returns standard normal z_k shaped
/// like `noise`.
Tensor sample_few_steps(const Denoiser& student, const Tensor& noise, const NoiseSchedule& schedule,
                        std::span<const double> levels, const Condition& condition,
                        const std::function<Tensor(std::size_t step)>& step_noise);

/// Heun's second-order sampler for the probability-flow ODE (Karras et al. 2022, algorithm 1).
/// `noise` [N,...] is standard normal; `levels` are decreasing sigmas, the last one 0. Costs
/// 2*(levels.size()-1)-1 evaluations. Returns clean samples.
Tensor sample_heun(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels,
                   const Condition& condition);

/// Settings of EDM's stochastic sampler: S_churn, S_min, S_max and S_noise.
struct StochasticSampling {
    double s_churn = 40, s_min = 0.05, s_max = 50, s_noise = 1.003;
};

/// EDM's stochastic sampler (Karras et al. 2022, algorithm 2), which adds noise before each step.
/// `step_noise(step)` returns the standard normal noise of a step, shaped like `noise`.
Tensor sample_heun_stochastic(const Denoiser& denoiser, const Tensor& noise,
                              std::span<const double> levels, const Condition& condition,
                              const StochasticSampling& stochastic,
                              const std::function<Tensor(std::size_t step)>& step_noise);

/// DDIM in EDM's variables, which is Euler's method on the same ODE (Song et al. 2021):
/// levels.size()-1 evaluations.
Tensor sample_ddim(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels,
                   const Condition& condition);

}  // namespace atelier::diffusion
