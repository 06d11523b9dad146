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
    /// For embeddings: one centroid a student, any length but zero. `offsets` (a number a student, or none) are added to the cosines.
    explicit Router(const std::vector<std::vector<float>>& centroids, std::vector<float> offsets = {});

    std::int64_t students() const;
    /// The owner of a class. Throws core::UsageError naming the range when there is no such class.
    std::int64_t route(std::int64_t class_id) const;
    /// The nearest centroid by cosine and offset; equal ones go to the lowest student. `embedding` must have the centroids' length.
    std::int64_t route(std::span<const float> embedding) const { return place(embedding).student; }

    /// Where an embedding lies among the cells.
    struct Place {
        std::int64_t student = 0;
        float score = 0;              // cosine with its centroid, and the student's offset
        std::int64_t runner_up = -1;  // the next student; -1 where there is one student only
        float margin = 0;             // score less the runner-up's: near 0 at a border
    };
    Place place(std::span<const float> embedding) const;

private:
    Partition partition_;
    std::size_t length_ = 0;        // numbers a centroid; 0: routed by classes
    std::vector<float> centroids_;  // one after the other, scaled to unit length
    std::vector<float> offsets_;
};

/// The requests of a mixed batch that go to one student, in their order.
struct Group {
    std::int64_t student;
    std::vector<std::int64_t> positions;  // in the batch
};

/// Groups a batch by student, students increasing; every position occurs once, so that results can be put back in order.
std::vector<Group> group_by_student(const Router& router, std::span<const std::int64_t> classes);

}  // namespace atelier::conditions
