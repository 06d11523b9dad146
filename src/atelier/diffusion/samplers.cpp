#include "atelier/diffusion/samplers.h"

#include <algorithm>
#include <cmath>

namespace atelier::diffusion {

namespace {

Tensor level_of(double sigma, const Tensor& x) { return at::full({x.size(0)}, sigma, x.options()); }

Tensor slope(const Denoiser& denoiser, const Tensor& x, double sigma, const Condition& condition) {
    return (x - denoiser.denoise(x, level_of(sigma, x), condition)) / sigma;
}

Tensor heun_step(const Denoiser& denoiser, const Tensor& x, double from, double to, const Condition& condition) {
    const Tensor first = slope(denoiser, x, from, condition);
    const Tensor euler = x + (to - from) * first;
    if (to == 0) return euler;
    return x + (to - from) * 0.5 * (first + slope(denoiser, euler, to, condition));
}

}  // namespace

Tensor sample_one_step(const Denoiser& student, const Tensor& noise, const NoiseRange& range, const Condition& condition) {
    return student.denoise(noise * range.start(), level_of(range.sigma_max, noise), condition);
}

Tensor sample_heun(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels, const Condition& condition) {
    Tensor x = noise * levels.front();
    for (std::size_t i = 0; i + 1 < levels.size(); ++i) x = heun_step(denoiser, x, levels[i], levels[i + 1], condition);
    return x;
}

Tensor sample_heun_stochastic(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels,
                              const Condition& condition, const Churn& churn,
                              const std::function<Tensor(std::size_t step)>& fresh_noise) {
    const double most = std::sqrt(2.0) - 1;
    const double gamma = std::min(churn.amount / static_cast<double>(levels.size() - 1), most);
    Tensor x = noise * levels.front();
    for (std::size_t i = 0; i + 1 < levels.size(); ++i) {
        double sigma = levels[i];
        if (sigma >= churn.sigma_low && sigma <= churn.sigma_high) {
            const double raised = sigma * (1 + gamma);
            x = x + std::sqrt(raised * raised - sigma * sigma) * churn.noise_scale * fresh_noise(i);
            sigma = raised;
        }
        x = heun_step(denoiser, x, sigma, levels[i + 1], condition);
    }
    return x;
}

Tensor sample_ddim(const Denoiser& denoiser, const Tensor& noise, std::span<const double> levels, const Condition& condition) {
    Tensor x = noise * levels.front();
    for (std::size_t i = 0; i + 1 < levels.size(); ++i) x = x + (levels[i + 1] - levels[i]) * slope(denoiser, x, levels[i], condition);
    return x;
}

}  // namespace atelier::diffusion
