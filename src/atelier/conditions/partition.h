#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/conditions/prior.h"

namespace atelier::conditions {

/// Which student owns which class: every class belongs to exactly one of `students` cells. Its hash
/// is stored with every student, so that none is served with another partition's router.
struct Partition {
    std::int64_t students = 1;
    std::string method;               // how it was created
    std::vector<std::int64_t> owner;  // class -> student, 0..students-1

    std::int64_t classes() const { return static_cast<std::int64_t>(owner.size()); }
    /// The classes of student k, increasing.
    std::vector<std::int64_t> cell(std::int64_t student) const;
    /// SHA-256 of the canonical JSON of students and owner; `method` is not included.
    std::string hash() const;
};

/// Throws core::Error, beginning with `where`, when a class has no owner or one out of range, or a
/// student owns nothing.
void check(const Partition& partition, const std::string& where);

nlohmann::json to_json(const Partition& partition);
/// Reads the output of to_json. Throws core::Error when the hash does not match the content.
Partition partition_from_json(const nlohmann::json& json, const std::string& where);

/// What a method reads beside the number of classes and the seed; the first two are a teacher's.
enum class PartitionNeeds { nothing, embeddings, difficulty, file };

/// The methods, in the order of the documentation below.
std::vector<std::string> partition_methods();

/// Throws core::UsageError when there is no such method, naming the nearest.
PartitionNeeds needs_of(const std::string& method);

/// Whether a teacher must have been trained, so that another one may give another partition.
inline bool is_of_teacher(PartitionNeeds needs) {
    return needs == PartitionNeeds::embeddings || needs == PartitionNeeds::difficulty;
}

struct PartitionRequest {
    std::string method = "consecutive";  // one of partition_methods
    std::int64_t students = 1;
    std::int64_t classes = 1;
    std::uint64_t seed = 0;
    // Each where the method needs it:
    std::vector<std::vector<double>> embeddings;  // one row per class
    std::vector<double> difficulty;               // one value per class, the teacher's loss
    std::string file;  // a JSON file {"owner": [...]} or {"cells": [[...], ...]}
};

/// Consecutive: nearly equal runs of class ids, the first ones larger. Random: a seeded shuffle,
/// dealt out evenly. K-means: spherical, over the rows of the embeddings. Balanced: greedy (hardest
/// class to the lightest cell), so that summed difficulty is nearly equal and no cell is empty.
/// File: as given. Throws core::UsageError when there are more students than classes or fewer than
/// 1, or the method is unknown (naming the nearest).
Partition partition_classes(const PartitionRequest& request);

}  // namespace atelier::conditions
