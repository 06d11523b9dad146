#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::training {

/// All that a stage's result depends on.
struct StageIdentity {
    nlohmann::json settings;                      // config values, nested
    /// The hash of what lies at a place, by the key that names it ("data.path"), or by what it is ("teacher"). A key of `settings` that was recorded with its content
    /// is compared by that alone: what was moved is the same.
    std::map<std::string, std::string> contents{};
    nlohmann::json defaults = nlohmann::json::object();  // of settings: what holds where an older program recorded none
    std::string growing{};                        // a number that may be raised when the stage is finished; it then goes on
};

/// A stage's folder in a run: what it was made with, and whether it is finished, in stage.json.
class StageFolder {
public:
    /// Throws core::UsageError, listing each difference, when the folder was begun under another identity.
    StageFolder(std::filesystem::path folder, StageIdentity identity);
    StageFolder(std::filesystem::path folder, nlohmann::json settings);

    /// The differences for which the constructor would throw, a line each.
    static std::vector<std::string> differences(const std::filesystem::path& folder, const StageIdentity& identity);

    /// What can be asked of a stage whose identity does not matter.
    static bool is_begun(const std::filesystem::path& folder);
    static bool is_finished(const std::filesystem::path& folder);
    static nlohmann::json note_of(const std::filesystem::path& folder, const std::string& name);

    const std::filesystem::path& path() const { return folder_; }
    bool finished() const;
    /// Where a finished stage's growing number was raised: what it was.
    std::optional<std::int64_t> grown_from() const;
    /// What finish was given; an empty object before.
    nlohmann::json result() const;
    /// What the stage was told to remember when it began; null where it was not.
    nlohmann::json note(const std::string& name) const;

    /// Records the identity, and `notes` besides those that are there; files may now appear in the folder.
    void begin(const nlohmann::json& notes = nlohmann::json::object()) const;
    void finish(const nlohmann::json& result) const;

private:
    nlohmann::json recorded() const;
    void write(nlohmann::json manifest) const;

    std::filesystem::path folder_;
    StageIdentity identity_;
};

/// The part of nested config values under the given keys ("seed", "teacher", "partition.students").
nlohmann::json selected(const nlohmann::json& values, const std::vector<std::string>& keys);

}  // namespace atelier::training
