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

/// Checksum of the step, the numbers and the tensors' checksum.
std::string seal_of(Metadata metadata) {
    metadata.erase("seal");
    return core::sha256(nlohmann::json(metadata).dump());
}

/// Doubles as text that reads back to the same bits.
Metadata metadata_of(const Checkpoint& checkpoint) {
    Metadata metadata{{"step", std::to_string(checkpoint.step)}, {"sha256", ops::hash_of(checkpoint.tensors)}};
    for (const auto& [name, number] : checkpoint.numbers) metadata["number/" + name] = fmt::format("{:a}", number);
    metadata["seal"] = seal_of(metadata);
    return metadata;
}

Checkpoint read(const fs::path& path) {
    const core::SafetensorsFile file(path);
    Checkpoint checkpoint;
    checkpoint.tensors = ops::read_parameters(file, true);
    const auto text = [&](const std::string& key) {
        const auto found = file.metadata().find(key);
        if (found == file.metadata().end()) core::fail("{}: no \"{}\" in its metadata; not a checkpoint", path.string(), key);
        return found->second;
    };
    // Runs that began before there was a seal go on without one.
    const bool sealed = !file.metadata().contains("seal") || text("seal") == seal_of(file.metadata());
    if (!sealed || text("sha256") != ops::hash_of(checkpoint.tensors)) core::fail("{}: its checksum does not fit; the file is damaged", path.string());
    const std::string step = text("step");
    if (std::from_chars(step.data(), step.data() + step.size(), checkpoint.step).ec != std::errc() || checkpoint.step < 0) {
        core::fail("{}: \"{}\" is no number of steps", path.string(), step);
    }
    checkpoint.path = path;
    for (const auto& [key, value] : file.metadata()) {
        if (key.starts_with("number/")) checkpoint.numbers[key.substr(7)] = std::strtod(value.c_str(), nullptr);
    }
    return checkpoint;
}

}  // namespace

double Checkpoint::number(const std::string& name) const {
    const auto found = numbers.find(name);
    if (found == numbers.end()) {
        core::fail("{}: holds no number \"{}\", so another version of the program wrote it; go on with that one, or delete the file's folder to "
                   "begin the stage anew", path.string(), name);
    }
    return found->second;
}

CheckpointFolder::CheckpointFolder(fs::path folder, int keep) : folder_(std::move(folder)), keep_(keep) {}

std::vector<fs::path> CheckpointFolder::files() const {
    std::vector<fs::path> found;
    if (!fs::exists(folder_)) return found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("step-") && name.ends_with(".safetensors")) found.push_back(entry.path());
    }
    std::ranges::sort(found, std::greater<>());
    return found;
}

void CheckpointFolder::save(const Checkpoint& checkpoint) const {
    const fs::path path = folder_ / fmt::format("step-{:012}.safetensors", checkpoint.step);
    ops::write_parameters(path, checkpoint.tensors, metadata_of(checkpoint));
    std::vector<fs::path> old = files();
    // Newer ones were passed over as damaged when the run went on from before them; they must not count as kept.
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
