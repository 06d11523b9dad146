#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace atelier::data {

/// The content of a dataset.json, {"labels": [["00000/img00000000.png", 6], ...]}.
struct Labelling {
    std::unordered_map<std::string, std::int64_t> labels;  // by image
    std::vector<std::string> class_names;                  // none, or one per class
};

/// Nothing where "labels" is null (unlabelled images). Throws core::Error that begins with `where`.
std::optional<Labelling> parse_labelling(std::string_view text, const std::string& where);

/// The class in a .cls file. Throws core::Error that begins with `where` when it is not a whole
/// number.
std::int64_t parse_class_text(std::string_view text, const std::string& where);

}  // namespace atelier::data
