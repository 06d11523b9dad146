#pragma once

#include <memory>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Whether a path names prompts alone, "prompts:FILE".
bool is_prompt_list(const std::filesystem::path& path);

/// The lines of a text file as captions without samples, each its own label: enough for students
/// that learn from the teacher alone. Throws core::Error when the file cannot be read, is empty, or
/// a line is not UTF-8 (naming it).
std::shared_ptr<const Dataset> open_prompt_list(const DataRequest& request);

}  // namespace atelier::data
