#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atelier::conditions {

/// The class that `word` names: one of `names` (empty, or one per class; ASCII letters in any
/// case), or an id below `classes` in digits. A name takes precedence over an id. Throws
/// core::UsageError listing the known classes.
std::int64_t parse_class(const std::string& word, const std::vector<std::string>& names,
                         std::int64_t classes);

}  // namespace atelier::conditions
