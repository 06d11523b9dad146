#pragma once

#include <filesystem>
#include <string>

#include "atelier/inference/engine.h"
#include "atelier/server/library.h"

namespace atelier::cli {

/// The model or ensemble directory at `path` for the server. `largest_batch`: of pictures that will be drawn together; a student is not loaded before
/// it could draw so many without delay. Opening throws core::Error when it is broken or holds points, which are no pictures.
server::Source served_source(const std::string& id, const std::filesystem::path& path, const inference::Engine& engine, std::size_t largest_batch);

}  // namespace atelier::cli
