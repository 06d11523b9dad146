#include "atelier/conditions/prior.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"

namespace atelier::conditions {

namespace {

double total_of(const Prior& prior) {
    double total = 0;
    for (std::size_t i = 0; i < prior.weights.size(); ++i) {
        const double weight = prior.weights[i];
        if (!std::isfinite(weight) || weight < 0) {
            core::fail("the prior's weight of class {} is {}; give counts or shares", i, weight);
        }
        total += weight;
    }
    if (!(total > 0) || !std::isfinite(total))
        core::fail("the prior's weights sum to {}; at least one class must occur", total);
    return total;
}

}  // namespace

ClassSampler::ClassSampler(const Prior& prior) {
    total_of(prior);
    double sum = 0;
    for (const double weight : prior.weights) {
        sum += weight;
        if (weight > 0) last_ = static_cast<std::int64_t>(sums_.size());
        sums_.push_back(sum);
    }
}

std::int64_t ClassSampler::at(std::uint64_t seed, std::uint64_t index) const {
    // 2^64 divided by the golden ratio. Integer steps wrap exactly, so even a huge index loses no
    // precision.
    constexpr std::uint64_t golden_step = 0x9e3779b97f4a7c15ULL;
    const std::uint64_t phase = core::RandomStream(seed, "class").next64() + index * golden_step;
    const double target = static_cast<double>(phase >> 11) * 0x1p-53 * sums_.back();
    // Rounding may move the target to the end of the sums; never return a class of weight 0.
    return std::min(std::ranges::upper_bound(sums_, target) - sums_.begin(), last_);
}

std::int64_t draw_class(const Prior& prior, std::uint64_t seed, std::uint64_t index) {
    return ClassSampler(prior).at(seed, index);
}

Prior restricted(const Prior& prior, std::span<const std::int64_t> classes) {
    Prior kept{std::vector<double>(prior.weights.size(), 0.0)};
    for (const std::int64_t i : classes) {
        if (i < 0 || i >= prior.classes())
            core::fail("the prior has no class {}; it has {}", i, prior.classes());
        kept.weights[static_cast<std::size_t>(i)] = prior.weights[static_cast<std::size_t>(i)];
    }
    total_of(kept);
    return kept;
}

}  // namespace atelier::conditions
