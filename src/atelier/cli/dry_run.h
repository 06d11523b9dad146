#pragma once

#include "atelier/cli/run_config.h"

namespace atelier::cli {

struct DryRun {
    double device_memory_gib = 0;  // in place of the config's device_memory, and of what is found; 0: those
    double tflops = 0;             // rate to reckon with in place of a measured one; 0: measured where the device is here
    bool json = false;
};

/// Says on standard output what a run would be: networks, stages, memory, work, images, time. Nothing is written. Neither data nor a teacher need be
/// there as long as the config says their shapes; where the data are there, all is checked that `run` checks before it trains. Throws core::UsageError when a stage does not fit into the device's memory, with what to lower.
void dry_run(LoadedConfig loaded, const DryRun& wishes);

}  // namespace atelier::cli
