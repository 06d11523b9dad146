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
    /// For embeddings: one centroid per student, of any non-zero length. `offsets` (one per
    /// student, or none) are added to the cosines.
    explicit Router(const std::vector<std::vector<float>>& centroids,
                    std::vector<float> offsets = {});

    std::int64_t students() const;
    /// The owner of a class. Throws core::UsageError naming the range when there is no such class.
    std::int64_t route(std::int64_t class_id) const;
    /// The student with the highest cosine plus offset; ties go to the lowest student. `embedding`
    /// must have the centroids' length.
    std::int64_t route(std::span<const float> embedding) const { return decide(embedding).student; }

    /// The owner of an embedding and how clear the decision is.
    struct Decision {
        std::int64_t student = 0;
        float score = 0;              // cosine with its centroid plus the student's offset
        std::int64_t runner_up = -1;  // the second best student; -1 if there is only one
        float margin = 0;             // score minus the runner-up's: near 0 at a border
    };
    Decision decide(std::span<const float> embedding) const;

private:
    Partition partition_;
    std::size_t length_ = 0;        // elements of a centroid; 0: routed by class
    std::vector<float> centroids_;  // [students,length], scaled to unit length
    std::vector<float> offsets_;
};

/// The requests of a mixed batch that go to one student, in their original order.
struct Group {
    std::int64_t student;
    std::vector<std::int64_t> positions;  // in the batch
};

/// Groups a batch by student, students increasing; every position occurs once, so that results can
/// be put back in order.
std::vector<Group> group_by_student(const Router& router, std::span<const std::int64_t> classes);

}  // namespace atelier::conditions
