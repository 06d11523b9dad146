#pragma once

#include <string>
#include <vector>

namespace atelier::cli {

/// Parses classes given by name or id, separated by commas; a class name that contains a comma is
/// recognised as a whole. Throws core::UsageError naming the nearest known class.
std::vector<std::int64_t> class_ids(const std::vector<std::string>& arguments,
                                    const std::vector<std::string>& names, std::int64_t classes);

}  // namespace atelier::cli
