#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace atelier::report {

/// Escapes text for HTML and SVG content and quoted attributes; control characters that XML forbids
/// become spaces.
std::string escape_markup(std::string_view text);

/// Base64 with padding (RFC 4648, section 4).
std::string base64(std::span<const std::uint8_t> bytes);

}  // namespace atelier::report
