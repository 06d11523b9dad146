#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "atelier/ops/parameters.h"

namespace atelier::training {

/// All that a stage needs to go on as if it had never stopped. Random streams and data order are functions of the step, so the step is
/// their state.
struct Checkpoint {
    std::int64_t step = 0;  // steps done
    ops::Parameters tensors;
    std::map<std::string, double> numbers;
    std::filesystem::path path;  // where it was read from

    /// Throws core::Error when it has no such number: then another version of the program wrote it.
    double number(const std::string& name) const;
};

/// The checkpoints of one stage: files step-<n>.safetensors, written atomically, the newest `keep` kept. Every file carries
/// SHA-256 sums of its content.
class CheckpointFolder {
public:
    explicit CheckpointFolder(std::filesystem::path folder, int keep = 2);

    /// Drops older ones beyond `keep`, and newer ones: latest() found them damaged.
    void save(const Checkpoint& checkpoint) const;
    /// The newest one that is whole; damaged ones are passed over with a warning. Nothing when there is none.
    std::optional<Checkpoint> latest() const;
    /// The path of the newest file, for messages; empty when there is none.
    std::filesystem::path latest_path() const;
    /// Deletes all of them, when the stage is finished.
    void clear() const;

private:
    std::vector<std::filesystem::path> files() const;  // newest first

    std::filesystem::path folder_;
    int keep_;
};

}  // namespace atelier::training
