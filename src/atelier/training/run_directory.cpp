#include "atelier/training/run_directory.h"

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/schema.h"

namespace atelier::training {

namespace {

nlohmann::json::json_pointer pointer_of(const std::string& key) {
    std::string pointer = "/" + key;
    for (char& c : pointer) {
        if (c == '.') c = '/';
    }
    return nlohmann::json::json_pointer(pointer);
}

/// The recorded settings, under the current names of their keys.
nlohmann::json recorded_settings(const nlohmann::json& manifest, const StageIdentity& identity) {
    nlohmann::json settings = manifest.value("settings", nlohmann::json::object());
    for (const auto& [former, key] : identity.former_keys) {
        const auto from = pointer_of(former), to = pointer_of(key);
        if (!settings.contains(from)) continue;
        const nlohmann::json value = settings.at(from);
        settings.at(from.parent_pointer()).erase(from.back());
        if (!settings.contains(to)) settings[to] = value;
    }
    return settings;
}

std::filesystem::path manifest_of(const std::filesystem::path& folder) {
    return folder / "stage.json";
}

nlohmann::json read_manifest(const std::filesystem::path& folder) {
    return std::filesystem::exists(manifest_of(folder)) ? core::read_json(manifest_of(folder))
                                                        : nlohmann::json::object();
}

bool finishes(const nlohmann::json& manifest) { return manifest.value("status", "") == "finished"; }

/// The recorded value of the extensible key, if it is smaller than the current one.
std::optional<std::int64_t> previous_value(const nlohmann::json& manifest,
                                           const StageIdentity& identity) {
    if (identity.extensible_key.empty()) return std::nullopt;
    const nlohmann::json settings = recorded_settings(manifest, identity);
    const auto pointer = pointer_of(identity.extensible_key);
    if (!settings.contains(pointer) || !settings.at(pointer).is_number_integer())
        return std::nullopt;
    const auto before = settings.at(pointer).get<std::int64_t>();
    return before < identity.settings.at(pointer).get<std::int64_t>() ? std::optional(before)
                                                                      : std::nullopt;
}

std::vector<std::string> differences_from(const nlohmann::json& manifest,
                                          const StageIdentity& identity) {
    nlohmann::json now = identity.settings;
    std::vector<std::string> changed;
    const nlohmann::json contents = manifest.value("contents", nlohmann::json::object());
    for (const auto& [key, hash] : identity.contents) {
        if (!contents.contains(key)) continue;
        if (contents[key] != hash) changed.push_back(key + ": its content has changed");
        const auto pointer = pointer_of(key);
        if (now.contains(pointer)) now[pointer.parent_pointer()].erase(pointer.back());
    }
    if (previous_value(manifest, identity))
        now[pointer_of(identity.extensible_key).parent_pointer()].erase(
            pointer_of(identity.extensible_key).back());
    for (std::string& line :
         core::changed_since(recorded_settings(manifest, identity), now, identity.defaults))
        changed.push_back(std::move(line));
    return changed;
}

}  // namespace

StageFolder::StageFolder(std::filesystem::path folder, StageIdentity identity)
    : folder_(std::move(folder)), identity_(std::move(identity)) {
    const auto changed = differences(folder_, identity_);
    if (changed.empty()) return;
    throw core::UsageError(
        fmt::format("{}: was made with other settings:\n  {}\nTake the old values again, give "
                    "another output=, or delete this folder to redo the stage",
                    folder_.string(), fmt::join(changed, "\n  ")));
}

StageFolder::StageFolder(std::filesystem::path folder, nlohmann::json settings)
    : StageFolder(std::move(folder), StageIdentity{.settings = std::move(settings)}) {}

std::vector<std::string> StageFolder::differences(const std::filesystem::path& folder,
                                                  const StageIdentity& identity) {
    const nlohmann::json manifest = read_manifest(folder);
    return manifest.empty() ? std::vector<std::string>{} : differences_from(manifest, identity);
}

bool StageFolder::is_begun(const std::filesystem::path& folder) {
    return std::filesystem::exists(manifest_of(folder));
}

bool StageFolder::is_finished(const std::filesystem::path& folder) {
    return finishes(read_manifest(folder));
}

nlohmann::json StageFolder::note_of(const std::filesystem::path& folder, const std::string& name) {
    return read_manifest(folder)
        .value("notes", nlohmann::json::object())
        .value(name, nlohmann::json());
}

nlohmann::json StageFolder::recorded() const { return read_manifest(folder_); }

bool StageFolder::finished() const {
    const nlohmann::json manifest = recorded();
    return finishes(manifest) && !previous_value(manifest, identity_);
}

std::optional<std::int64_t> StageFolder::extended_from() const {
    const nlohmann::json manifest = recorded();
    return finishes(manifest) ? previous_value(manifest, identity_) : std::nullopt;
}

nlohmann::json StageFolder::result() const {
    return finished() ? recorded().value("result", nlohmann::json::object())
                      : nlohmann::json::object();
}

nlohmann::json StageFolder::note(const std::string& name) const { return note_of(folder_, name); }

void StageFolder::begin(const nlohmann::json& notes) const {
    nlohmann::json manifest{{"status", "training"},
                            {"notes", recorded().value("notes", nlohmann::json::object())}};
    manifest["notes"].update(notes);
    write(std::move(manifest));
}

void StageFolder::finish(const nlohmann::json& result) const {
    write({{"status", "finished"},
           {"notes", recorded().value("notes", nlohmann::json::object())},
           {"result", result}});
}

void StageFolder::write(nlohmann::json manifest) const {
    manifest["settings"] = identity_.settings;
    if (!identity_.contents.empty()) manifest["contents"] = identity_.contents;
    if (manifest["notes"].empty()) manifest.erase("notes");
    core::write_json(manifest_of(folder_), manifest);
}

nlohmann::json selected(const nlohmann::json& values, const std::vector<std::string>& keys) {
    nlohmann::json subset = nlohmann::json::object();
    for (const std::string& key : keys) {
        const auto at = pointer_of(key);
        if (values.contains(at)) subset[at] = values.at(at);
    }
    return subset;
}

}  // namespace atelier::training
