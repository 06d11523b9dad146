#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/conditions/prior.h"

namespace atelier::conditions {

/// Which student owns which class: every class belongs to exactly one of `students` cells. Data, not code; its hash is written
/// into every student, so that none is served by another partition's router.
struct Partition {
    std::int64_t students = 1;
    std::string method;               // how it was made
    std::vector<std::int64_t> owner;  // class -> student, 0..students-1

    std::int64_t classes() const { return static_cast<std::int64_t>(owner.size()); }
    /// The classes of student k, increasing.
    std::vector<std::int64_t> cell(std::int64_t student) const;
    /// SHA-256 of the canonical JSON of students and owner; how it was made does not count.
    std::string hash() const;
};

/// Throws core::Error, beginning with `where`, when a class has no owner or an owner out of range, or a student owns nothing.
void check(const Partition& partition, const std::string& where);

nlohmann::json to_json(const Partition& partition);
/// Reads what to_json wrote; a hash in the file that does not fit its content is an error.
Partition partition_from_json(const nlohmann::json& json, const std::string& where);

struct PartitionRequest {
    std::string method = "consecutive";  // consecutive, random, kmeans, balanced, file
    std::int64_t students = 1;
    std::int64_t classes = 1;
    std::uint64_t seed = 0;
    std::vector<std::vector<double>> embeddings;  // a row a class: kmeans
    std::vector<double> difficulty;               // a number a class (teacher loss): balanced
    std::string file;                             // a JSON file {"owner": [...]} or {"cells": [[...], ...]}: file
};

/// Consecutive: nearly equal runs of class ids, the first ones larger. Random: a seeded shuffle, dealt out evenly. K-means:
/// spherical, over the embeddings' rows. Balanced: greedy (hardest class to the lightest cell), so that summed difficulty is near
/// equal and no cell stays empty. File: as given. Throws core::UsageError when there are more students than classes or fewer than
/// 1, or the method is unknown (naming the nearest).
Partition make_partition(const PartitionRequest& request);

}  // namespace atelier::conditions
