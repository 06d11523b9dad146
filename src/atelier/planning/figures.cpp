#include "atelier/planning/figures.h"

#include <utility>

#include <fmt/format.h>

namespace atelier::planning {

std::string format_count(double count) {
    for (const auto& [size, letter] :
         {std::pair{1e18, 'E'}, {1e15, 'P'}, {1e12, 'T'}, {1e9, 'G'}, {1e6, 'M'}, {1e3, 'k'}}) {
        if (count >= size) return fmt::format("{:.4g} {}", count / size, letter);
    }
    return fmt::format("{:.4g} ", count);
}

std::string format_quantity(double count) {
    std::string text = format_count(count);
    if (text.ends_with(' ')) text.pop_back();
    return text;
}

}  // namespace atelier::planning
