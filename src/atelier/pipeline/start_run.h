#pragma once

#include <functional>
#include <string>

#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

struct StartOptions {
    std::string lock_folder;  // within the run's directory; empty: all of it
    bool locks = true;        // shards work side by side, and write each file atomically
    bool trains = true;       // check_before_training comes first
    bool all_stages = false;  // existing stages are checked, and log.txt is written
};

/// Checks a run, sets its threads, locks its directory (or one folder of it) against a second
/// process, then calls `work`. Errors in data and config are thrown before the directory is made.
void start_run(RunContext& context, const StartOptions& options,
               const std::function<void(RunContext&)>& work);

}  // namespace atelier::pipeline
