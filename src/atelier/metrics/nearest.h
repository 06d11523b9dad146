#pragma once

#include <cstdint>
#include <functional>

#include "atelier/backends/torch/torch.h"

namespace atelier::metrics {

/// Calls `visit(first, distances)` for consecutive blocks of rows of `a` [N,F]: `distances` [n,M]
/// are the Euclidean distances, in float64, from rows first..first+n-1 of `a` to all rows of `b`
/// [M,F]. A block takes at most 32 MB. Narrow rows (F <= 16: points) are subtracted exactly; wide
/// ones (features, pixels) use a matrix product. Throws core::Error when the shapes do not match.
void for_distance_blocks(
    const Tensor& a, const Tensor& b,
    const std::function<void(std::int64_t first, const Tensor& distances)>& visit);

struct Nearest {
    Tensor distances;  // [N,k] float64, ascending
    Tensor indices;    // [N,k] int64
};

/// The `k` rows of `candidates` [M,F] nearest to each row of `queries` [N,F]. Throws core::Error
/// when M < k.
Nearest nearest(const Tensor& queries, const Tensor& candidates, std::int64_t k);

/// Distance of each row of `points` [N,F] to its k-th nearest other row, [N] float64. Throws
/// core::Error when N <= k.
Tensor neighbour_radii(const Tensor& points, std::int64_t k);

}  // namespace atelier::metrics
