#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace atelier::data {

/// What a dataset.json says, {"labels": [["00000/img00000000.png", 6], ...]}.
struct Labelling {
    std::unordered_map<std::string, std::int64_t> labels;  // by image
    std::vector<std::string> class_names;                  // none, or one per class
};

/// Nothing where the images are said to be unlabelled. Throws core::Error that begins with `where`.
std::optional<Labelling> labelling_in(std::string_view text, const std::string& where);

/// The whole number in a .cls file. Throws core::Error that begins with `where`.
std::int64_t class_in_text(std::string_view text, const std::string& where);

}  // namespace atelier::data
