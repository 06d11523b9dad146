#include "atelier/training/checkpoint.h"

#include <algorithm>
#include <charconv>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"

namespace atelier::training {

namespace fs = std::filesystem;

namespace {

using Metadata = std::map<std::string, std::string>;

/// The checksum of the metadata: the step, the scalars and the tensors' checksum.
std::string checksum_of(Metadata metadata) {
    metadata.erase("seal");
    return core::sha256(nlohmann::json(metadata).dump());
}

/// Metadata with doubles in hexadecimal, which read back to the same bits.
Metadata metadata_of(const Checkpoint& checkpoint) {
    Metadata metadata{{"step", std::to_string(checkpoint.step)},
                      {"sha256", backends::hash_of(checkpoint.tensors)}};
    for (const auto& [name, scalar] : checkpoint.scalars)
        metadata["number/" + name] = fmt::format("{:a}", scalar);
    metadata["seal"] = checksum_of(metadata);
    return metadata;
}

Checkpoint read(const fs::path& path) {
    const core::SafetensorsFile file(path);
    Checkpoint checkpoint;
    checkpoint.tensors = backends::read_parameters(file, true);
    const auto text = [&](const std::string& key) {
        const auto found = file.metadata().find(key);
        if (found == file.metadata().end())
            core::fail("{}: no \"{}\" in its metadata; not a checkpoint", path.string(), key);
        return found->second;
    };
    // Checkpoints of older versions have no metadata checksum.
    const bool intact =
        !file.metadata().contains("seal") || text("seal") == checksum_of(file.metadata());
    if (!intact || text("sha256") != backends::hash_of(checkpoint.tensors))
        core::fail("{}: its checksum does not match; the file is damaged", path.string());
    const std::string step = text("step");
    if (std::from_chars(step.data(), step.data() + step.size(), checkpoint.step).ec !=
            std::errc() ||
        checkpoint.step < 0) {
        core::fail("{}: \"{}\" is not a number of steps", path.string(), step);
    }
    checkpoint.path = path;
    for (const auto& [key, value] : file.metadata()) {
        if (key.starts_with("number/"))
            checkpoint.scalars[key.substr(7)] = std::strtod(value.c_str(), nullptr);
    }
    return checkpoint;
}

}  // namespace

double Checkpoint::scalar(const std::string& name) const {
    const auto found = scalars.find(name);
    if (found == scalars.end()) {
        core::fail(
            "{}: has no value \"{}\", so another version of the program wrote it; continue with "
            "that version, or delete the file's folder to start the stage again",
            path.string(), name);
    }
    return found->second;
}

CheckpointFolder::CheckpointFolder(fs::path folder, int keep)
    : folder_(std::move(folder)), keep_(keep) {}

std::vector<fs::path> CheckpointFolder::files() const {
    std::vector<fs::path> found;
    if (!fs::exists(folder_)) return found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("step-") && name.ends_with(".safetensors"))
            found.push_back(entry.path());
    }
    std::ranges::sort(found, std::greater<>());
    return found;
}

fs::path CheckpointFolder::file_of(std::int64_t step) const {
    return folder_ / fmt::format("step-{:012}.safetensors", step);
}

Checkpoint CheckpointFolder::at_step(std::int64_t step) const { return read(file_of(step)); }

void CheckpointFolder::save(const Checkpoint& checkpoint) const {
    const fs::path path = file_of(checkpoint.step);
    backends::write_parameters(path, checkpoint.tensors, metadata_of(checkpoint));
    std::vector<fs::path> old = files();
    // Newer files were skipped as damaged when the run resumed from an older one; they must not
    // count towards `keep`.
    std::erase_if(old, [&](const fs::path& other) { return other > path && fs::remove(other); });
    for (std::size_t i = static_cast<std::size_t>(keep_); i < old.size(); ++i) fs::remove(old[i]);
}

std::optional<Checkpoint> CheckpointFolder::latest() const {
    for (const fs::path& path : files()) {
        try {
            return read(path);
        } catch (const core::Error& error) {
            core::log::warning("{}; trying the one before it", error.what());
        }
    }
    return std::nullopt;
}

fs::path CheckpointFolder::latest_path() const {
    const auto all = files();
    return all.empty() ? fs::path() : all.front();
}

void CheckpointFolder::clear() const { fs::remove_all(folder_); }

}  // namespace atelier::training
