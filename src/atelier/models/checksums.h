#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::models {

/// The member of config.json or ensemble.json that holds the SHA-256 of files below it:
/// {"model.safetensors": "..."}.
inline constexpr const char* checksums_key = "checksums";

/// The SHA-256 of each of `files`, paths below `directory`.
nlohmann::json checksums_of(const std::filesystem::path& directory,
                            const std::vector<std::string>& files);

/// All weights files (*.safetensors) below `directory`, sorted, as relative paths. Links to folders
/// are not followed.
std::vector<std::string> weights_below(const std::filesystem::path& directory);

/// How many weights files below a model or ensemble directory match the checksums in its JSON
/// files, and how many have no checksum. Throws core::Error naming the first file that differs.
struct Verified {
    std::int64_t compared = 0, without = 0;
};
Verified verify_checksums(const std::filesystem::path& directory);

}  // namespace atelier::models
