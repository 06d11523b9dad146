#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/inference/engine.h"
#include "atelier/server/library.h"
#include "atelier/server/routed_ensemble.h"

namespace atelier::cli {

/// How the models of this machine are served.
struct Serving {
    inference::Engine engine;
    std::size_t largest_batch = 1;       // of pictures that will be drawn together; a student is not loaded before it could draw so many without delay
    std::vector<std::int64_t> students;  // the only ones asked here, increasing; empty: all
};

/// The model or ensemble directory at `path` for the server. Opening throws core::Error when it is broken or holds points, which are no pictures, and
/// core::UsageError when it has not all of `students`.
server::Source served_source(const std::string& id, const std::filesystem::path& path, const Serving& serving);

/// The ensemble directory at `path`, of which only ensemble.json is read, for a server that asks others for pictures.
server::Source routed_source(const std::string& id, const std::filesystem::path& path, const server::RoutedEnsemble::Options& options);

}  // namespace atelier::cli
