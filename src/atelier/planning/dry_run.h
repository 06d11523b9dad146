#pragma once

#include "atelier/pipeline/run_config.h"
#include "atelier/planning/rank_plan.h"

namespace atelier::planning {

struct DryRunOptions {
    double device_memory_gib =
        0;              // overrides the config's device_memory and the detected one; 0: use those
    double tflops = 0;  // the device's rate; 0: measured where the device is present
    bool json = false;
    RankSettings ranks{};  // GPUs that train each network together
};

/// Prints what a run needs: networks, stages, memory, work, images, time. Writes no files. Data and
/// teacher need not exist where the config gives their shapes; where the data exist, everything
/// that `run` checks before training is checked. Throws core::UsageError when a stage does not fit
/// into the device's memory, saying what to lower.
void dry_run(pipeline::LoadedConfig loaded, const DryRunOptions& options);

/// What to do about a stage (a config's table: "dm") that ran out of its device's memory: the
/// micro_batch that should fit, by the dry run's estimate.
std::string advice_on_memory(const pipeline::LoadedConfig& loaded, const std::string& stage);

}  // namespace atelier::planning
