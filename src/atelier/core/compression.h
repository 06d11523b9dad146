#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace atelier::core {

/// The program that compressed a file, "gzip" for instance, by the file's first bytes; empty where
/// none is known to write such.
inline std::string_view compression_of(std::string_view begin) {
    using namespace std::string_view_literals;
    static constexpr std::pair<std::string_view, std::string_view> known[]{
        {"\x1f\x8b"sv, "gzip"},
        {"\xfd"
         "7zXZ"sv,
         "xz"},
        {"\x28\xb5\x2f\xfd"sv, "zstd"},
        {"BZh"sv, "bzip2"},
        {"7z\xbc\xaf"sv, "7z"},
    };
    for (const auto& [bytes, name] : known) {
        if (begin.starts_with(bytes)) return name;
    }
    return {};
}

/// How such a file becomes one that is read, for messages: it may be a tar, which tar unpacks
/// whatever compressed it.
inline std::string how_to_unpack(std::string_view compression, const std::string& path) {
    if (compression == "7z") return fmt::format("7z x {}", path);
    return fmt::format("tar -xf {}", path);
}

}  // namespace atelier::core
