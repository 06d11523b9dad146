#include "atelier/diffusion/samplers.h"

#include <algorithm>
#include <cmath>

namespace atelier::diffusion {

namespace {

Tensor level_of(double sigma, const Tensor& x) { return at::full({x.size(0)}, sigma, x.options()); }

/// dx/dt of the probability-flow ODE (EDM's d_cur).
Tensor derivative(const Denoiser& denoiser, const Tensor& x, double sigma,
                  const Condition& condition) {
    return (x - denoiser.denoise(x, level_of(sigma, x), condition)) / sigma;
}

Tensor heun_step(const Denoiser& denoiser, const Tensor& x, double from, double to,
                 const Condition& condition) {
    const Tensor d_cur = derivative(denoiser, x, from, condition);
    const Tensor euler = x + (to - from) * d_cur;
    if (to == 0) return euler;
    return x + (to - from) * 0.5 * (d_cur + derivative(denoiser, euler, to, condition));
}

}  // namespace

Tensor sample_one_step(const Denoiser& student, const Tensor& noise, const NoiseSchedule& schedule,
                       const Condition& condition) {
    return student.denoise(noise * schedule.initial_noise_scale(),
                           level_of(schedule.sigma_max, noise), condition);
}

Tensor sample_few_steps(const Denoiser& student, const Tensor& noise, const NoiseSchedule& schedule,
                        std::span<const double> levels, const Condition& condition,
                        const std::function<Tensor(std::size_t step)>& step_noise) {
    Tensor x = sample_one_step(student, noise, schedule, condition);
    for (std::size_t k = 1; k < levels.size(); ++k)
        x = student.denoise(x + levels[k] * step_noise(k), level_of(levels[k], x), condition);
    return x;
}

Tensor sample_heun(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels,
                   const Condition& condition) {
    Tensor x = noise * levels.front();
    for (std::size_t i = 0; i + 1 < levels.size(); ++i)
        x = heun_step(denoiser, x, levels[i], levels[i + 1], condition);
    return x;
}

Tensor sample_heun_stochastic(const Denoiser& denoiser, const Tensor& noise,
                              std::span<const double> levels, const Condition& condition,
                              const StochasticSampling& stochastic,
                              const std::function<Tensor(std::size_t step)>& step_noise) {
    const double gamma_max = std::sqrt(2.0) - 1;
    const double gamma =
        std::min(stochastic.s_churn / static_cast<double>(levels.size() - 1), gamma_max);
    Tensor x = noise * levels.front();
    for (std::size_t i = 0; i + 1 < levels.size(); ++i) {
        double sigma = levels[i];
        if (sigma >= stochastic.s_min && sigma <= stochastic.s_max) {
            const double sigma_hat = sigma * (1 + gamma);
            x = x + std::sqrt(sigma_hat * sigma_hat - sigma * sigma) * stochastic.s_noise *
                        step_noise(i);
            sigma = sigma_hat;
        }
        x = heun_step(denoiser, x, sigma, levels[i + 1], condition);
    }
    return x;
}

Tensor sample_ddim(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels,
                   const Condition& condition) {
    Tensor x = noise * levels.front();
    for (std::size_t i = 0; i + 1 < levels.size(); ++i)
        x = x + (levels[i + 1] - levels[i]) * derivative(denoiser, x, levels[i], condition);
    return x;
}

}  // namespace atelier::diffusion
