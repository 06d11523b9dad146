#pragma once

#include <string>
#include <vector>

namespace atelier::cli {

/// Classes by name or id, commas between them; a name with a comma in it is taken whole. Throws core::UsageError naming the nearest that is known.
std::vector<std::int64_t> class_ids(const std::vector<std::string>& words, const std::vector<std::string>& names, std::int64_t classes);

}  // namespace atelier::cli
