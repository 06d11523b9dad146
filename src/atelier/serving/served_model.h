#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/inference/engine.h"
#include "atelier/server/model_registry.h"
#include "atelier/server/routed_ensemble.h"

namespace atelier::serving {

/// How the models of this machine are served.
struct ServingOptions {
    inference::Engine engine;
    std::size_t max_batch = 1;  // largest batch of images; students are prepared for batches up to
                                // this size
    std::vector<std::int64_t> students;  // the only students served, ascending; empty: all
};

/// The model or ensemble directory at `path` for the server. Opening throws core::Error when it is
/// invalid or generates points instead of images, and core::UsageError when a requested student
/// does not exist.
server::ModelSource served_source(const std::string& id, const std::filesystem::path& path,
                                  const ServingOptions& serving);

/// The ensemble directory at `path` for a router, which forwards requests to other servers; only
/// ensemble.json is read.
server::ModelSource routed_source(const std::string& id, const std::filesystem::path& path,
                                  const server::RoutedEnsemble::Options& options);

}  // namespace atelier::serving
