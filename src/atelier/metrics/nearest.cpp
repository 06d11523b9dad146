#include "atelier/metrics/nearest.h"

#include <algorithm>
#include <vector>

#include "atelier/core/error.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t largest_block = std::int64_t{1} << 22;  // float64 values
constexpr std::int64_t widest_exact = 16;
constexpr std::int64_t with_matrix_product = 1, without_matrix_product = 2;  // at::cdist's modes

}  // namespace

void for_distance_blocks(
    const Tensor& a, const Tensor& b,
    const std::function<void(std::int64_t first, const Tensor& distances)>& visit) {
    if (a.dim() != 2 || b.dim() != 2 || a.size(1) != b.size(1)) {
        core::fail(
            "distances: expected two sets of rows of equal width, got {} and {} dimensions and "
            "widths {} and {}",
            a.dim(), b.dim(), a.size(-1), b.size(-1));
    }
    if (a.size(0) == 0 || b.size(0) == 0)
        core::fail("distances: a set of samples is empty; use more samples");
    const Tensor from = a.to(at::kCPU, at::kDouble), to = b.to(at::kCPU, at::kDouble);
    const std::int64_t rows = std::max<std::int64_t>(1, largest_block / to.size(0));
    const std::int64_t mode =
        from.size(1) > widest_exact ? with_matrix_product : without_matrix_product;
    for (std::int64_t first = 0; first < from.size(0); first += rows) {
        visit(first, at::cdist(from.narrow(0, first, std::min(rows, from.size(0) - first)), to, 2.0,
                               mode));
    }
}

Nearest nearest(const Tensor& queries, const Tensor& candidates, std::int64_t k) {
    if (k < 1 || candidates.size(0) < k)
        core::fail("nearest: {} neighbours requested of {} candidates", k, candidates.size(0));
    std::vector<Tensor> distances, indices;
    for_distance_blocks(queries, candidates, [&](std::int64_t, const Tensor& block) {
        const auto [values, block_indices] = block.topk(k, 1, /*largest=*/false, /*sorted=*/true);
        distances.push_back(values);
        indices.push_back(block_indices);
    });
    return {at::cat(distances), at::cat(indices)};
}

Tensor neighbour_radii(const Tensor& points, std::int64_t k) {
    if (points.size(0) <= k) {
        core::fail(
            "neighbour radii: {} samples are too few for {} neighbours each; use more samples",
            points.size(0), k);
    }
    return nearest(points, points, k + 1).distances.select(1, k).clone();  // the nearest row is the
                                                                           // point itself
}

}  // namespace atelier::metrics
