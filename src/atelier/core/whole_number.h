#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace atelier::core {

/// The decimal number that `text` is, as a whole: digits, with a minus before them at most. Nothing
/// for anything else, spaces and a plus included, and where it does not fit.
inline std::optional<std::int64_t> whole_number(std::string_view text) {
    std::int64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [stopped, problem] = std::from_chars(text.data(), end, number);
    return problem == std::errc() && stopped == end ? std::optional(number) : std::nullopt;
}

}  // namespace atelier::core
