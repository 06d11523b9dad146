#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/random_streams.h"

namespace atelier::diffusion {

/// The range of noise levels that a model is trained for.
struct NoiseRange {
    double sigma_min = 0.002, sigma_max = 80.0;
    bool from_pure_noise = false;  // a student starts from x_T = z, as DDPM models do, not from
                                   // c_in sigma_max z

    /// Factor on standard normal noise that gives a student's x_t at sigma_max.
    double initial_noise_scale() const {
        return from_pure_noise ? std::sqrt(1 + sigma_max * sigma_max) : sigma_max;
    }
};

/// Karras levels: `count` sigmas from sigma_max down to sigma_min, evenly spaced in sigma^(1/rho)
/// (Karras et al. 2022, eq. 5).
std::vector<double> karras_levels(const NoiseRange& range, std::int64_t count, double rho = 7.0);

/// karras_levels with a final 0, as samplers need them.
std::vector<double> sampling_levels(const NoiseRange& range, std::int64_t count, double rho = 7.0);

/// Training levels of a teacher: ln sigma ~ N(p_mean, p_std^2), [count] float32.
Tensor lognormal_levels(core::RandomStream& stream, std::int64_t count, double p_mean,
                        double p_std);

/// Standard normal values from a stream, float32 of `shape`.
Tensor normal_tensor(core::RandomStream& stream, at::IntArrayRef shape);

/// The noise of images first..first+count-1 of `seed`, [count, shape...]; that of image i is a
/// function of (seed, i) alone.
Tensor image_noise(std::uint64_t seed, std::int64_t first, std::int64_t count,
                   at::IntArrayRef shape);

}  // namespace atelier::diffusion
