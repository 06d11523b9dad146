#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "atelier/core/image_file.h"

namespace atelier::core {

inline constexpr std::uint32_t longest_side = 16384;

/// Readers of whole files in memory; `where` begins the messages of their Errors. Sides longer than `longest` are refused.
Image decode_png(std::span<const std::uint8_t> file, const std::string& where, std::uint32_t longest = longest_side);
Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& where, std::uint32_t longest = longest_side);
std::map<std::string, std::string> decode_png_text(std::span<const std::uint8_t> file, const std::string& where);

}  // namespace atelier::core
