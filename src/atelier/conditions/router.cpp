#include "atelier/conditions/router.h"

#include <cmath>

#include "atelier/conditions/dot.h"
#include "atelier/core/error.h"

namespace atelier::conditions {

namespace {

/// Adds `centroid`, scaled to unit length, to the end of `all`.
void append_unit(std::vector<float>& all, const std::vector<float>& centroid, std::size_t student) {
    double squares = 0;
    for (const float x : centroid) squares += static_cast<double>(x) * x;
    if (!std::isfinite(squares) || squares == 0) {
        core::fail(
            "the router's centroid {} is zero or not finite; was the ensemble's file damaged?",
            student);
    }
    for (const float x : centroid) all.push_back(static_cast<float>(x / std::sqrt(squares)));
}

}  // namespace

Router::Router(Partition partition) : partition_(std::move(partition)) {
    check(partition_, "router");
}

Router::Router(const std::vector<std::vector<float>>& centroids, std::vector<float> offsets)
    : offsets_(std::move(offsets)) {
    if (centroids.empty()) core::fail("a router needs at least one centroid");
    if (offsets_.empty()) offsets_.resize(centroids.size());
    if (offsets_.size() != centroids.size())
        core::fail("the router has {} centroids and {} offsets", centroids.size(), offsets_.size());
    length_ = centroids[0].size();
    for (std::size_t k = 0; k < centroids.size(); ++k) {
        if (centroids[k].size() != length_) {
            core::fail("the router's centroid {} has {} elements, centroid 0 has {}", k,
                       centroids[k].size(), length_);
        }
        append_unit(centroids_, centroids[k], k);
    }
}

std::int64_t Router::students() const {
    return length_ == 0 ? partition_.students
                        : static_cast<std::int64_t>(centroids_.size() / length_);
}

std::int64_t Router::route(std::int64_t class_id) const {
    if (length_ > 0) throw core::UsageError("this ensemble is routed by prompts, not by classes");
    if (class_id < 0 || class_id >= partition_.classes()) {
        throw core::UsageError(fmt::format("there is no class {}; classes are 0 to {}", class_id,
                                           partition_.classes() - 1));
    }
    return partition_.owner[static_cast<std::size_t>(class_id)];
}

Router::Decision Router::decide(std::span<const float> embedding) const {
    if (length_ == 0) throw core::UsageError("this ensemble is routed by classes, not by prompts");
    if (embedding.size() != length_)
        core::fail("the embedding has {} elements, the router's centroids have {}",
                   embedding.size(), length_);
    const double squares = dot(embedding.data(), embedding.data(), length_);
    if (!std::isfinite(squares))
        core::fail("the embedding holds values that are not finite, so it has no nearest centroid");
    const auto scale = static_cast<float>(squares > 0 ? 1 / std::sqrt(squares) : 0);
    Decision found;
    float second = 0;
    for (std::int64_t k = 0; k < students(); ++k) {
        const auto at = static_cast<std::size_t>(k);
        const float score =
            scale * dot(embedding.data(), centroids_.data() + at * length_, length_) + offsets_[at];
        if (k == 0 || score > found.score) {
            if (k > 0) {
                found.runner_up = found.student;
                second = found.score;
            }
            found.student = k;
            found.score = score;
        } else if (found.runner_up < 0 || score > second) {
            found.runner_up = k;
            second = score;
        }
    }
    found.margin = found.runner_up < 0 ? 0 : found.score - second;
    return found;
}

std::vector<Group> group_by_student(const Router& router, std::span<const std::int64_t> classes) {
    std::vector<Group> groups;
    std::vector<std::vector<std::int64_t>> positions(static_cast<std::size_t>(router.students()));
    for (std::size_t i = 0; i < classes.size(); ++i) {
        positions[static_cast<std::size_t>(router.route(classes[i]))].push_back(
            static_cast<std::int64_t>(i));
    }
    for (std::size_t k = 0; k < positions.size(); ++k) {
        if (!positions[k].empty())
            groups.push_back({static_cast<std::int64_t>(k), std::move(positions[k])});
    }
    return groups;
}

}  // namespace atelier::conditions
