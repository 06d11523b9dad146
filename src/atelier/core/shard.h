#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace atelier::core {

/// A process's share of work that is divided among processes which do not talk to each other: units
/// 0, 1, 2, ... go to the shards in turn. What a unit is does not depend on the number of shards,
/// so all shards together make what one process makes.
struct Shard {
    std::int64_t index = 0;  // from 0
    std::int64_t count = 1;

    bool owns(std::int64_t unit) const { return unit % count == index; }
    /// Whether there is no other shard.
    bool whole() const { return count == 1; }
    /// "2/3", counted from 1 as users write it.
    std::string name() const;
};

/// Parses "r/W" (r from 1 to W), or "auto/W" and "auto", which take the number from the variables
/// of a job array (array_task). Only Slurm says how many tasks there are, so "auto" is for Slurm.
/// Throws UsageError that begins with --shard.
Shard shard_of(const std::string& text);

/// The number of this process in a job array, and the variable that says so.
struct ArrayTask {
    std::int64_t number = 0;
    std::string variable;
};

/// Reads SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX (Kubernetes' Indexed Jobs) or PBS_ARRAY_INDEX,
/// the first that is set; nothing where none is. Throws UsageError when its value is not a number
/// from 0 upwards, and when Kubernetes' index is that of a rank (WORLD_SIZE is set, RANK is not).
std::optional<ArrayTask> array_task();

/// The names of those variables, for messages.
inline constexpr const char* array_variables =
    "SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX or PBS_ARRAY_INDEX";

}  // namespace atelier::core
