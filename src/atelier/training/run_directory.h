#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::training {

/// A stage's folder in a run: what it was made with, and whether it is finished, in stage.json.
class StageFolder {
public:
    /// `settings` are the config values that this stage's result depends on. Throws core::UsageError, listing each difference, when
    /// the folder was begun under other settings.
    StageFolder(std::filesystem::path folder, nlohmann::json settings);

    const std::filesystem::path& path() const { return folder_; }
    bool finished() const;
    /// What finish was given; an empty object before.
    nlohmann::json result() const;

    /// Records the settings; files may now appear in the folder.
    void begin() const;
    void finish(const nlohmann::json& result) const;

private:
    std::filesystem::path manifest() const { return folder_ / "stage.json"; }

    std::filesystem::path folder_;
    nlohmann::json settings_;
};

/// The part of nested config values under the given keys ("seed", "teacher", "partition.students").
nlohmann::json selected(const nlohmann::json& values, const std::vector<std::string>& keys);

}  // namespace atelier::training
