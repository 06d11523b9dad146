#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace atelier::core {

/// SHA-256 in lower-case hexadecimal, 64 characters.
std::string sha256(std::string_view text);
std::string sha256(std::span<const std::byte> bytes);

/// SHA-256 of lines, joined by line feeds.
std::string sha256_of_lines(std::span<const std::string> lines);

/// SHA-256 of a file's bytes, read in blocks. Throws Error when it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

/// FNV-1a, 64 bit: for the names of random streams, not for security.
constexpr std::uint64_t fnv1a(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    return hash;
}

}  // namespace atelier::core
