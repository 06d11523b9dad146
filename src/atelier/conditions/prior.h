#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace atelier::conditions {

/// How often each class occurs in the training data; weights are counts or shares, not all zero.
struct Prior {
    std::vector<double> weights;

    std::int64_t classes() const { return static_cast<std::int64_t>(weights.size()); }
};

/// The class of sample `index` under `seed`: a function of the two alone. Indices run through a low-discrepancy sequence
/// (golden-ratio steps from a seeded start), so that any stretch of n samples holds each class within a few of its expected n*p.
std::int64_t draw_class(const Prior& prior, std::uint64_t seed, std::uint64_t index);

/// The same for many draws: sums of the weights are kept, so that one takes as long as a search among them. Throws core::Error when weights are no counts or
/// shares, or all zero.
class ClassDraws {
public:
    explicit ClassDraws(const Prior& prior);

    std::int64_t at(std::uint64_t seed, std::uint64_t index) const;

private:
    std::vector<double> sums_;
    std::int64_t last_ = 0;  // class of a weight above zero
};

/// The prior with every class outside `classes` set to zero. Throws core::Error when nothing is left.
Prior restricted(const Prior& prior, std::span<const std::int64_t> classes);

}  // namespace atelier::conditions
