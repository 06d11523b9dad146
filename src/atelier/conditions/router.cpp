#include "atelier/conditions/router.h"

#include <cmath>

#include "atelier/core/error.h"

namespace atelier::conditions {

namespace {

void scale_to_unit(std::vector<float>& centroid, std::size_t student) {
    double squares = 0;
    for (const float x : centroid) squares += static_cast<double>(x) * x;
    if (!std::isfinite(squares) || squares == 0) {
        core::fail("the router's centroid {} is zero or not finite; was the ensemble's file damaged?", student);
    }
    for (float& x : centroid) x = static_cast<float>(x / std::sqrt(squares));
}

}  // namespace

Router::Router(Partition partition) : partition_(std::move(partition)) { check(partition_, "router"); }

Router::Router(std::vector<std::vector<float>> centroids) : centroids_(std::move(centroids)) {
    if (centroids_.empty()) core::fail("a router needs at least one centroid");
    for (std::size_t k = 0; k < centroids_.size(); ++k) {
        if (centroids_[k].size() != centroids_[0].size()) {
            core::fail("the router's centroid {} has {} numbers, centroid 0 has {}", k, centroids_[k].size(),
                       centroids_[0].size());
        }
        scale_to_unit(centroids_[k], k);
    }
}

std::int64_t Router::students() const {
    return centroids_.empty() ? partition_.students : static_cast<std::int64_t>(centroids_.size());
}

std::int64_t Router::route(std::int64_t class_id) const {
    if (!centroids_.empty()) throw core::UsageError("this ensemble is routed by prompts, not by classes");
    if (class_id < 0 || class_id >= partition_.classes()) {
        throw core::UsageError(fmt::format("there is no class {}; classes are 0 to {}", class_id, partition_.classes() - 1));
    }
    return partition_.owner[static_cast<std::size_t>(class_id)];
}

std::int64_t Router::route(std::span<const float> embedding) const {
    if (centroids_.empty()) throw core::UsageError("this ensemble is routed by classes, not by prompts");
    if (embedding.size() != centroids_[0].size()) {
        core::fail("the embedding has {} numbers, the router's centroids have {}", embedding.size(), centroids_[0].size());
    }
    std::int64_t nearest = 0;
    double best = 0;
    for (std::size_t k = 0; k < centroids_.size(); ++k) {
        double similarity = 0;
        for (std::size_t i = 0; i < embedding.size(); ++i) similarity += static_cast<double>(embedding[i]) * centroids_[k][i];
        if (!std::isfinite(similarity)) {
            core::fail("the embedding holds numbers that are not finite, so it has no nearest centroid");
        }
        if (k == 0 || similarity > best) {
            best = similarity;
            nearest = static_cast<std::int64_t>(k);
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
