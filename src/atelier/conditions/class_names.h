#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atelier::conditions {

/// The class that `word` means: one of `names` (empty, or one a class; ASCII letters in any case), or an id below `classes` in digits. A name comes
/// before an id. Throws core::UsageError saying what is known.
std::int64_t class_named(const std::string& word, const std::vector<std::string>& names, std::int64_t classes);

}  // namespace atelier::conditions
