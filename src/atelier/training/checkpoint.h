#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "atelier/backends/torch/parameters.h"

namespace atelier::training {

/// Everything a stage needs to resume exactly where it stopped. Random streams and data order are
/// functions of the step, so the step is their state.
struct Checkpoint {
    std::int64_t step = 0;  // completed steps
    backends::Parameters tensors;
    std::map<std::string, double> scalars;
    std::filesystem::path path;  // the file it was read from

    /// The scalar `name`. Throws core::Error if there is none: another version of the program wrote
    /// the file.
    double scalar(const std::string& name) const;
};

/// The checkpoints of one stage: files step-<n>.safetensors, written atomically, keeping the
/// newest `keep`. Every file contains SHA-256 checksums of its content.
class CheckpointFolder {
public:
    explicit CheckpointFolder(std::filesystem::path folder, int keep = 2);

    /// Also deletes older files beyond `keep`, and newer ones, which latest() found damaged.
    void save(const Checkpoint& checkpoint) const;
    /// The newest intact checkpoint, skipping damaged ones with a warning; nullopt if there is
    /// none.
    std::optional<Checkpoint> latest() const;
    /// The checkpoint after `step` steps. Throws core::Error where the file is missing or damaged.
    Checkpoint at_step(std::int64_t step) const;
    /// The path of the newest file, for messages; empty if there is none.
    std::filesystem::path latest_path() const;
    /// Deletes all checkpoints, when the stage is finished.
    void clear() const;

private:
    std::vector<std::filesystem::path> files() const;  // newest first
    std::filesystem::path file_of(std::int64_t step) const;

    std::filesystem::path folder_;
    int keep_;
};

}  // namespace atelier::training
