#pragma once

#include <functional>
#include <span>

#include "atelier/diffusion/denoiser.h"
#include "atelier/diffusion/noise_levels.h"

namespace atelier::diffusion {

/// A one-step student's answer: D(start z; sigma_max, c). `noise` z [N,...] is standard normal.
Tensor sample_one_step(const Denoiser& student, const Tensor& noise, const NoiseRange& range, const Condition& condition);

/// Heun's second-order sampler for the probability-flow ODE (Karras et al. 2022, algorithm 1). `noise` [N,...] is standard
/// normal; `levels` are decreasing sigmas, the last one 0. Costs 2*(levels.size()-1)-1 evaluations. Returns clean samples.
Tensor sample_heun(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels, const Condition& condition);

/// Churn of the stochastic sampler.
struct Churn {
    double amount = 40, sigma_low = 0.05, sigma_high = 50, noise_scale = 1.003;
};

/// Karras et al. 2022, algorithm 2: before each step noise is added back. `fresh_noise(step)` gives the standard normal numbers of a
/// step, shaped like `noise`.
Tensor sample_heun_stochastic(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels,
                              const Condition& condition, const Churn& churn,
                              const std::function<Tensor(std::size_t step)>& fresh_noise);

/// DDIM in EDM's variables, which is Euler's method on the same ODE (Song et al. 2021): levels.size()-1 evaluations.
Tensor sample_ddim(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels, const Condition& condition);

}  // namespace atelier::diffusion
