#pragma once

#include <filesystem>

#include "atelier/metrics/distances.h"

namespace atelier::metrics {

/// Reads reference statistics of features: a .npz with `mu` [F] and `sigma` [F,F], float32 or
/// float64, as used by NVlabs/edm and guided-diffusion's evaluator. Other arrays are ignored. Such
/// files do not contain the number of samples; `count` is 0. Throws core::Error naming the file
/// when arrays are missing, have the wrong shape or non-finite values, or `sigma` is not a
/// covariance (asymmetric, or with negative eigenvalues).
Statistics read_statistics(const std::filesystem::path& path, std::int64_t width);

/// Writes `mu` and `sigma` in float64, atomically.
void write_statistics(const std::filesystem::path& path, const Statistics& statistics);

}  // namespace atelier::metrics
