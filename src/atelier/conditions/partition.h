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

struct PartitionRequest {
    std::string method = "consecutive";  // consecutive, random, kmeans, balanced, file
    std::int64_t students = 1;
    std::int64_t classes = 1;
    std::uint64_t seed = 0;
    std::vector<std::vector<double>> embeddings;  // one row per class: kmeans
    std::vector<double> difficulty;               // one value per class (teacher loss): balanced
    std::string file;  // a JSON file {"owner": [...]} or {"cells": [[...], ...]}: file
};

/// Consecutive: nearly equal runs of class ids, the first ones larger. Random: a seeded shuffle,
/// dealt out evenly. K-means: spherical, over the rows of the embeddings. Balanced: greedy (hardest
/// class to the lightest cell), so that summed difficulty is nearly equal and no cell is empty.
/// File: as given. Throws core::UsageError when there are more students than classes or fewer than
/// 1, or the method is unknown (naming the nearest).
Partition make_partition(const PartitionRequest& request);

}  // namespace atelier::conditions
