#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "atelier/conditions/partition.h"

namespace atelier::conditions {

/// Sends each condition to the one student that owns it: a total, deterministic function.
class Router {
public:
    explicit Router(Partition partition);
    /// For embeddings: one centroid a student, any length but zero.
    explicit Router(const std::vector<std::vector<float>>& centroids);

    std::int64_t students() const;
    /// The owner of a class. Throws core::UsageError naming the range when there is no such class.
    std::int64_t route(std::int64_t class_id) const;
    /// The nearest centroid by cosine; equal distances go to the lowest student. `embedding` must have the centroids' length.
    std::int64_t route(std::span<const float> embedding) const;

private:
    Partition partition_;
    std::size_t length_ = 0;        // numbers a centroid; 0: routed by classes
    std::vector<float> centroids_;  // one after the other, scaled to unit length
};

/// The requests of a mixed batch that go to one student, in their order.
struct Group {
    std::int64_t student;
    std::vector<std::int64_t> positions;  // in the batch
};

/// Groups a batch by student, students increasing; every position occurs once, so that results can be put back in order.
std::vector<Group> group_by_student(const Router& router, std::span<const std::int64_t> classes);

}  // namespace atelier::conditions
