#pragma once

#include <string_view>

namespace atelier::planning {

/// The text of docs/choosing-k.json; generated (cmake/embed_evidence.cmake).
std::string_view evidence_file();

}  // namespace atelier::planning
