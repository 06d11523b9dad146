#pragma once

#include <string>
#include <string_view>

namespace atelier::core {

/// ASCII letters in lower case, whatever the locale.
inline std::string lower_case(std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return out;
}

}  // namespace atelier::core
