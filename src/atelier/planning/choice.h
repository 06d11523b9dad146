#pragma once

#include <string>

#include "atelier/pipeline/run_config.h"

namespace atelier::planning {

struct ChoiceOptions {
    double budget_hours = 0;       // of one device, for everything that the run trains
    double latency_ms = 0;         // of one evaluation of a student; 0: any
    double latency_tflops = 0;     // a rate instead of measuring latency here; 0: measure
    double device_memory_gib = 0;  // as in DryRunOptions
    double tflops = 0;             // as in DryRunOptions
    std::string evidence;          // a file like docs/choosing-k.json; empty: the built-in one
    bool json = false;
};

/// Prints what so many hours buy with 1, 2, 4, 8 and the config's number of students, as wide as
/// the config's and narrower, and a choice among them: the widest that fits memory and latency, and
/// the number of students and the batch that evidence names for such students and so many samples
/// per condition, or else the config's. Steps of TSM, trunk, DM and ADM are in the config's
/// proportions. Writes no files. Throws core::UsageError where nothing fits, or too little is
/// known.
void print_choice(const pipeline::LoadedConfig& loaded, const ChoiceOptions& options);

}  // namespace atelier::planning
