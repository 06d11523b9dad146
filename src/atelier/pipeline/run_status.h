#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/core/atomic_file.h"
#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

/// Writes run.json: the run's config, and its stages with their steps, so that its state can be
/// read from its directory alone. `shares`: the students' budgets (RunContext::shares).
void record_plan(const RunContext& context, std::span<const double> shares);

/// Where a stage stands.
struct StageStatus {
    enum class State { done, running, interrupted, waiting, unneeded };
    std::string path;  // "students/0/dm", as in stage_path
    State state = State::waiting;
    std::optional<std::int64_t> step, steps;       // of a stage that counts; pairs of pairs
    std::optional<double> steps_per_second;        // since it was last started
    std::optional<double> seconds_left;            // where it is running
    std::optional<double> seconds;                 // that it took, where it is done
    std::optional<double> checkpoint_seconds_ago;  // age of the newest checkpoint
    std::optional<double> probe_distance;          // the last
    std::optional<core::LockHolder> holder;        // where it is running
};

/// Where a run stands.
struct RunStatus {
    enum class State { empty, running, interrupted, finished };
    std::filesystem::path directory;
    State state = State::empty;
    std::vector<StageStatus> stages;  // in order
    std::vector<core::LockHolder> holders;
    std::string next;  // the path of the stage that comes next; empty: none
    double bytes = 0;  // on disk

    nlohmann::json json() const;
    /// For people: one line for the run, and one for each stage.
    std::string text() const;
};

/// Reads the state of the run in `directory`, changing nothing. Throws core::UsageError when there
/// is no directory, or one that is neither empty nor a run's.
RunStatus run_status(const std::filesystem::path& directory);

}  // namespace atelier::pipeline
