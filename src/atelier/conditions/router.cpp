#include "atelier/conditions/router.h"

#include <cmath>

#include "atelier/core/error.h"

namespace atelier::conditions {

namespace {

/// Adds `centroid`, scaled to unit length, to the end of `all`.
void append_unit(std::vector<float>& all, const std::vector<float>& centroid, std::size_t student) {
    double squares = 0;
    for (const float x : centroid) squares += static_cast<double>(x) * x;
    if (!std::isfinite(squares) || squares == 0) {
        core::fail("the router's centroid {} is zero or not finite; was the ensemble's file damaged?", student);
    }
    for (const float x : centroid) all.push_back(static_cast<float>(x / std::sqrt(squares)));
}

/// Sums in as many lanes as the widest vectors have, so that the compiler may use them.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
float dot(const float* a, const float* b, std::size_t length) {
    constexpr std::size_t lanes = 32;
    float sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= length; i += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < length; ++i) sums[i % lanes] += a[i] * b[i];
    float total = 0;
    for (const float sum : sums) total += sum;
    return total;
}

}  // namespace

Router::Router(Partition partition) : partition_(std::move(partition)) { check(partition_, "router"); }

Router::Router(const std::vector<std::vector<float>>& centroids) {
    if (centroids.empty()) core::fail("a router needs at least one centroid");
    length_ = centroids[0].size();
    for (std::size_t k = 0; k < centroids.size(); ++k) {
        if (centroids[k].size() != length_) {
            core::fail("the router's centroid {} has {} numbers, centroid 0 has {}", k, centroids[k].size(), length_);
        }
        append_unit(centroids_, centroids[k], k);
    }
}

std::int64_t Router::students() const {
    return length_ == 0 ? partition_.students : static_cast<std::int64_t>(centroids_.size() / length_);
}

std::int64_t Router::route(std::int64_t class_id) const {
    if (length_ > 0) throw core::UsageError("this ensemble is routed by prompts, not by classes");
    if (class_id < 0 || class_id >= partition_.classes()) {
        throw core::UsageError(fmt::format("there is no class {}; classes are 0 to {}", class_id, partition_.classes() - 1));
    }
    return partition_.owner[static_cast<std::size_t>(class_id)];
}

std::int64_t Router::route(std::span<const float> embedding) const {
    if (length_ == 0) throw core::UsageError("this ensemble is routed by classes, not by prompts");
    if (embedding.size() != length_) core::fail("the embedding has {} numbers, the router's centroids have {}", embedding.size(), length_);
    std::int64_t nearest = 0;
    float best = 0;
    for (std::int64_t k = 0; k < students(); ++k) {
        const float similarity = dot(embedding.data(), centroids_.data() + static_cast<std::size_t>(k) * length_, length_);
        if (!std::isfinite(similarity)) {
            core::fail("the embedding holds numbers that are not finite, so it has no nearest centroid");
        }
        if (k == 0 || similarity > best) {
            best = similarity;
            nearest = k;
        }
    }
    return nearest;
}

std::vector<Group> group_by_student(const Router& router, std::span<const std::int64_t> classes) {
    std::vector<Group> groups;
    std::vector<std::vector<std::int64_t>> positions(static_cast<std::size_t>(router.students()));
    for (std::size_t i = 0; i < classes.size(); ++i) {
        positions[static_cast<std::size_t>(router.route(classes[i]))].push_back(static_cast<std::int64_t>(i));
    }
    for (std::size_t k = 0; k < positions.size(); ++k) {
        if (!positions[k].empty()) groups.push_back({static_cast<std::int64_t>(k), std::move(positions[k])});
    }
    return groups;
}

}  // namespace atelier::conditions
