#include "atelier/models/checksums.h"

#include <algorithm>
#include <map>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

/// Adds the checksums in a JSON file to `recorded`, by file.
void add_recorded(std::map<fs::path, std::pair<std::string, fs::path>>& recorded,
                  const fs::path& file) {
    const nlohmann::json json = core::read_json(file);
    if (!json.is_object() || !json.contains(checksums_key)) return;
    const core::JsonObject sums = core::JsonObject(json, file.string()).object(checksums_key);
    for (const auto& [name, value] : sums.json().items()) {
        const fs::path relative = fs::path(name).lexically_normal();
        if (relative.empty() || relative.is_absolute() || *relative.begin() == "..")
            core::fail("{}: \"{}\" leaves the directory", sums.where(), name.substr(0, 200));
        recorded[(file.parent_path() / relative).lexically_normal()] = {sums.text(name), file};
    }
}

template <class Visit>
void visit_files(const fs::path& directory, const Visit& visit) {
    try {
        for (auto entry = fs::recursive_directory_iterator(directory); entry != fs::end(entry);
             ++entry) {
            const std::string name = entry->path().filename().string();
            if (name == "training") entry.disable_recursion_pending();  // a run's checkpoints
            else if (!name.starts_with('.') && entry->is_regular_file()) visit(entry->path());
        }
    } catch (const fs::filesystem_error& problem) {
        core::fail("{}: cannot be read ({})", problem.path1().string(), problem.code().message());
    }
}

bool holds_weights(const fs::path& file) { return file.extension() == ".safetensors"; }

}  // namespace

nlohmann::json checksums_of(const fs::path& directory, const std::vector<std::string>& files) {
    nlohmann::json sums = nlohmann::json::object();
    for (const std::string& file : files) sums[file] = core::sha256_of_file(directory / file);
    return sums;
}

std::vector<std::string> weights_below(const fs::path& directory) {
    std::vector<std::string> files;
    visit_files(directory, [&](const fs::path& file) {
        if (holds_weights(file))
            files.push_back(file.lexically_relative(directory).generic_string());
    });
    std::ranges::sort(files);
    return files;
}

Verified verify_checksums(const fs::path& directory) {
    std::map<fs::path, std::pair<std::string, fs::path>> recorded;
    std::vector<fs::path> weights;
    visit_files(directory, [&](const fs::path& file) {
        if (file.filename() == "config.json" || file.filename() == "ensemble.json")
            add_recorded(recorded, file);
        if (holds_weights(file)) weights.push_back(file.lexically_normal());
    });
    Verified verified;
    for (const auto& [file, sum] : recorded) {
        if (!fs::is_regular_file(file))
            continue;  // averages may be deleted; a missing file that is needed fails when it is
                       // read
        if (core::sha256_of_file(file) != sum.first) {
            core::fail(
                "{}: differs from its checksum in {}; the file is damaged, or was exchanged. Copy "
                "it again",
                file.string(), sum.second.string());
        }
        ++verified.compared;
    }
    verified.without = std::ranges::count_if(
        weights, [&](const fs::path& file) { return !recorded.contains(file); });
    return verified;
}

}  // namespace atelier::models
