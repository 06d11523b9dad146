#include "atelier/training/run_directory.h"

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/schema.h"

namespace atelier::training {

StageFolder::StageFolder(std::filesystem::path folder, nlohmann::json settings)
    : folder_(std::move(folder)), settings_(std::move(settings)) {
    if (!std::filesystem::exists(manifest())) return;
    const nlohmann::json before = core::read_json(manifest());
    const auto changed = core::differences(before.value("settings", nlohmann::json::object()), settings_);
    if (changed.empty()) return;
    throw core::UsageError(fmt::format(
        "{}: was made with other settings:\n  {}\nTake the old values again, give another output=, or delete this folder to redo the stage",
        folder_.string(), fmt::join(changed, "\n  ")));
}

bool StageFolder::finished() const {
    return std::filesystem::exists(manifest()) && core::read_json(manifest()).value("status", "") == "finished";
}

nlohmann::json StageFolder::result() const {
    if (!finished()) return nlohmann::json::object();
    return core::read_json(manifest()).value("result", nlohmann::json::object());
}

void StageFolder::begin() const {
    core::write_json(manifest(), {{"status", "training"}, {"settings", settings_}});
}

void StageFolder::finish(const nlohmann::json& result) const {
    core::write_json(manifest(), {{"status", "finished"}, {"settings", settings_}, {"result", result}});
}

nlohmann::json selected(const nlohmann::json& values, const std::vector<std::string>& keys) {
    nlohmann::json part = nlohmann::json::object();
    for (const std::string& key : keys) {
        std::string pointer = "/" + key;
        for (char& c : pointer) {
            if (c == '.') c = '/';
        }
        const nlohmann::json::json_pointer at(pointer);
        if (values.contains(at)) part[at] = values.at(at);
    }
    return part;
}

}  // namespace atelier::training
