#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::models {

/// The member of config.json or ensemble.json that holds the SHA-256 of files below it: {"model.safetensors": "..."}.
inline constexpr const char* checksums_key = "checksums";

/// Reads each of `files`, paths below `directory`.
nlohmann::json checksums_of(const std::filesystem::path& directory, const std::vector<std::string>& files);

/// Weights of every kind that lie below `directory` (*.safetensors), in order, as paths below it. Links to folders are not followed.
std::vector<std::string> weights_below(const std::filesystem::path& directory);

/// How many files below a model or ensemble directory were compared with the checksums that its JSON files keep, and how many have none. Throws core::Error naming the
/// first file that differs.
struct Verified {
    std::int64_t compared = 0, without = 0;
};
Verified verify_checksums(const std::filesystem::path& directory);

}  // namespace atelier::models
