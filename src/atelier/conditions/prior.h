#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace atelier::conditions {

/// How often each class occurs in the training data; weights are counts or frequencies, not all
/// zero.
struct Prior {
    std::vector<double> weights;

    std::int64_t classes() const { return static_cast<std::int64_t>(weights.size()); }
};

/// The class of sample `index` under `seed`, a function of the two alone. Indices run through a
/// low-discrepancy sequence (golden-ratio steps from a seeded start), so that any run of n samples
/// has each class within a few of its expected n*p.
std::int64_t draw_class(const Prior& prior, std::uint64_t seed, std::uint64_t index);

/// The same for many samples: keeps the cumulative weights, so that a draw is one binary search.
/// Throws core::Error when a weight is negative or not finite, or all are zero.
class ClassSampler {
public:
    explicit ClassSampler(const Prior& prior);

    std::int64_t at(std::uint64_t seed, std::uint64_t index) const;

private:
    std::vector<double> sums_;
    std::int64_t last_ = 0;  // the last class with a weight above zero
};

/// The prior with the weights of all classes outside `classes` set to zero. Throws core::Error when
/// no weight is left or there is no such class.
Prior restricted(const Prior& prior, std::span<const std::int64_t> classes);

}  // namespace atelier::conditions
