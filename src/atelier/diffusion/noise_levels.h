#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "atelier/core/random_streams.h"
#include "atelier/ops/torch.h"

namespace atelier::diffusion {

/// The span of noise levels that a model knows.
struct NoiseRange {
    double sigma_min = 0.002, sigma_max = 80.0;
    bool from_pure_noise = false;  // a student's x_t is the noise itself, as DDPM models start (x_T = z), not c_in sigma_max times it

    /// What standard normal numbers are multiplied by to be a student's x_t at sigma_max.
    double start() const { return from_pure_noise ? std::sqrt(1 + sigma_max * sigma_max) : sigma_max; }
};

/// Karras levels: `count` sigmas from sigma_max down to sigma_min, evenly spaced in sigma^(1/rho) (Karras et al. 2022, eq. 5).
std::vector<double> karras_levels(const NoiseRange& range, std::int64_t count, double rho = 7.0);

/// karras_levels with a final 0, as samplers want them.
std::vector<double> sampling_levels(const NoiseRange& range, std::int64_t count, double rho = 7.0);

/// Training levels of a teacher: ln sigma ~ N(mean, deviation^2), [count] float32.
Tensor lognormal_levels(core::RandomStream& stream, std::int64_t count, double mean, double deviation);

/// Standard normal numbers from a stream, float32 of `shape`.
Tensor normal_tensor(core::RandomStream& stream, at::IntArrayRef shape);

/// The noise of the images `first`..`first+count-1` of `seed`, [count, shape...]: image i's is a function of (seed, i) alone.
Tensor image_noise(std::uint64_t seed, std::int64_t first, std::int64_t count, at::IntArrayRef shape);

}  // namespace atelier::diffusion
