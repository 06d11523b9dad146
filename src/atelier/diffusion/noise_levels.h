#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/random_streams.h"

namespace atelier::diffusion {

/// Karras levels: `count` sigmas from sigma_max down to sigma_min, evenly spaced in sigma^(1/rho)
/// (Karras et al. 2022, eq. 5).
std::vector<double> karras_levels(double sigma_min, double sigma_max, std::int64_t count,
                                  double rho = 7.0);

/// Training levels of a teacher: ln sigma ~ N(p_mean, p_std^2), [count] float32.
Tensor lognormal_levels(core::RandomStream& stream, std::int64_t count, double p_mean,
                        double p_std);

/// `count` levels drawn uniformly from levels[first..last], [count] float32.
Tensor indexed_levels(core::RandomStream& stream, std::int64_t count,
                      std::span<const double> levels, std::int64_t first, std::int64_t last);

/// Standard normal values from a stream, float32 of `shape`.
Tensor normal_tensor(core::RandomStream& stream, at::IntArrayRef shape);

/// Rows first..first+count-1 of the standard normal values, float32 of [N, row...], that each of
/// these streams begins with; [count, row...] for each stream, on `device`. The rows before them
/// are not computed. The CPU draws with the streams; on accelerators the same bits are computed
/// there, by tensor operations, for all streams together.
std::vector<Tensor> normal_rows(std::span<const core::RandomStream> streams, at::IntArrayRef row,
                                std::int64_t first, std::int64_t count, at::Device device);

/// The noise of images first..first+count-1 of `seed`, [count, shape...]; that of image i is a
/// function of (seed, i) alone.
Tensor image_noise(std::uint64_t seed, std::int64_t first, std::int64_t count,
                   at::IntArrayRef shape);

}  // namespace atelier::diffusion
