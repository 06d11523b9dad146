#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace atelier::parallel {

/// The order in which tensors are summed over ranks, and which are summed together. The same on all
/// ranks.
struct Buckets {
    std::vector<std::int64_t> order;                              // of the tensors
    std::vector<std::pair<std::int64_t, std::int64_t>> ranges{};  // of places in it, [first, end)
};

/// Bytes of the whole numbers that are summed together: large enough that links are used well, and
/// small enough that the first sum begins early (as in PyTorch's DistributedDataParallel).
inline constexpr std::int64_t bucket_bytes = std::int64_t{25} << 20;

/// Buckets of tensors of these `sizes` (elements), in `order`, each of as many as fit into `bytes`
/// at 8 per element, and of at least one.
Buckets buckets_of(std::vector<std::int64_t> order, const std::vector<std::int64_t>& sizes,
                   std::int64_t bytes = bucket_bytes);

}  // namespace atelier::parallel
