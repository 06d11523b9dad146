#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::training {

/// Everything that a stage's result depends on.
struct StageIdentity {
    nlohmann::json settings;  // config values, nested
    /// Content hashes, by the key whose path names the content ("data.path"), or by role
    /// ("teacher"). A key of `settings` that was recorded with its content is compared by content
    /// only, so files may be moved.
    std::map<std::string, std::string> contents{};
    nlohmann::json defaults =
        nlohmann::json::object();  // of settings: for keys that an older version did not record
    std::map<std::string, std::string>
        former_keys{};             // older names of keys of `settings`, mapped to the current ones
    std::string extensible_key{};  // key of an integer that may be raised after the stage is
                                   // finished, which resumes it
};

/// A stage's folder in a run, with its identity and status in stage.json.
class StageFolder {
public:
    /// Throws core::UsageError, listing each difference, if the folder was begun with another
    /// identity.
    StageFolder(std::filesystem::path folder, StageIdentity identity);
    StageFolder(std::filesystem::path folder, nlohmann::json settings);

    /// The differences for which the constructor would throw, one line each.
    static std::vector<std::string> differences(const std::filesystem::path& folder,
                                                const StageIdentity& identity);

    /// Queries that do not depend on the stage's identity.
    static bool is_begun(const std::filesystem::path& folder);
    static bool is_finished(const std::filesystem::path& folder);
    static nlohmann::json note_of(const std::filesystem::path& folder, const std::string& name);

    const std::filesystem::path& path() const { return folder_; }
    bool finished() const;
    /// The previous value if a finished stage's extensible key was raised.
    std::optional<std::int64_t> extended_from() const;
    /// The argument of finish(); an empty object before.
    nlohmann::json result() const;
    /// A note recorded by begin(); null if there is none.
    nlohmann::json note(const std::string& name) const;

    /// Records the identity, and adds `notes` to those already recorded; the folder may then be
    /// written to.
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
