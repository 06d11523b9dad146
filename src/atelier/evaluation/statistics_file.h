#pragma once

#include <filesystem>

#include "atelier/evaluation/distances.h"

namespace atelier::evaluation {

/// Reads reference statistics of features: a .npz with `mu` [F] and `sigma` [F,F], as NVlabs/edm
/// and the reference batches of guided-diffusion's evaluator have them (float32 or float64). Other
/// arrays are not looked at. The count of samples is not in such files and is 0. Throws core::Error
/// naming the file when arrays are missing, of other shapes, not finite, or `sigma` is no
/// covariance: not symmetric, or with negative eigenvalues.
Statistics read_statistics(const std::filesystem::path& path, std::int64_t width);

/// Writes `mu` and `sigma` in float64, atomically.
void write_statistics(const std::filesystem::path& path, const Statistics& statistics);

}  // namespace atelier::evaluation
