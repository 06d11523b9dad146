#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/json_file.h"
#include "atelier/core/shard.h"

namespace atelier::metrics {

/// A folder in which processes that share an evaluation leave what they measured: a file for each
/// batch of rows, written atomically. The batches are those of one process that does everything, so
/// whoever finds them all computes from them what it would have computed. A part that is missing
/// because its process died can be made by any.
class EvaluationParts {
public:
    /// `result` is the file that is written in the end.
    EvaluationParts(std::filesystem::path folder, std::filesystem::path result,
                    const core::Shard& mine);

    /// Begins, or goes on with, the evaluation that `request` describes, from its first batch.
    /// Throws core::UsageError when the folder holds parts of another.
    void begin(const nlohmann::json& request);

    /// The result of this evaluation, where it was written already; null otherwise. `protocols`:
    /// that of every model, by name.
    nlohmann::json finished(const nlohmann::json& protocols) const;

    /// The next batch, in an order that is the same in every process: rows `first`, ... of `set`.
    /// Calls `measure` and writes the part where it is this process's and missing. Throws
    /// core::Interrupted when a stop was requested.
    void make(const std::string& set, std::int64_t first,
              const std::function<backends::Parameters()>& measure);

    /// Whether all batches that `make` was called for are there, and how many are not. Those of
    /// others are looked for again: of shards that run at once, the last to ask finds all.
    bool complete() const { return missing() == 0; }
    std::int64_t missing() const;
    std::int64_t batches() const { return next_; }

    /// Throws core::Error when the part is missing or has another number of rows than `n`.
    backends::Parameters read(const std::string& set, std::int64_t first, std::int64_t n) const;

    /// Removes the parts, when the result is written.
    void remove() const;
    /// Whether another process did so after all were there.
    bool removed_by_another() const;

    const core::Shard& shard() const { return mine_; }
    /// How far the evaluation is when this shard is done and others are not: for the log.
    std::string standing() const;

private:
    std::filesystem::path path_of(const std::string& set, std::int64_t first) const;

    std::filesystem::path folder_, result_;
    core::Shard mine_;
    std::int64_t next_ = 0;
    mutable std::vector<std::filesystem::path> missing_;  // when they were looked for last
};

}  // namespace atelier::metrics
