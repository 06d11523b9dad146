#pragma once

#include <cmath>

#include "atelier/planning/run_plan.h"

/// What stages need on a device: memory and time.
namespace atelier::planning {

inline constexpr double gib = 1024.0 * 1024 * 1024;

/// The device of a run, as far as it is known here.
struct DeviceProfile {
    double memory = 0;             // bytes; 0: unknown
    double base_bytes = 0;         // that the process takes before any tensor
    double rate = 0;               // FLOP/s that a training step reaches; 0: unknown
    std::string rate_description;  // for people
    bool is_here = false;          // so that steps can be measured
};

/// `memory_gib` and `tflops` as given, or 0: the config's or what is found, and measured where the
/// device is.
DeviceProfile profile_device(const pipeline::RunConfig& config, double memory_gib, double tflops);

/// Bytes: on a CPU what this process may use. 0: unknown.
double available_memory(const pipeline::RunConfig& config, double given_gib);

struct Estimate {
    double bytes = 0,
           bytes_toggled = 0;              // the latter with activation checkpointing toggled
    std::int64_t fitting_micro_batch = 0;  // that would fit; 0: none, or not needed
    double step_seconds = std::nan("");
    std::string from;
};

/// The largest micro-batch that fits, halving `first`; 0 where none does.
std::int64_t largest_micro_batch(const PlannedStage& stage, std::int64_t first, double base_bytes,
                                 double memory, bool recompute);

/// What a stage takes. Where the device is here and no rate was given, steps of a small stage are
/// measured on noise, after a warm-up step, and the median is taken. Throws core::Interrupted when
/// a stop is requested.
Estimate estimate(const pipeline::RunConfig& config, const RunPlan& plan, const PlannedStage& stage,
                  const DeviceProfile& device);

}  // namespace atelier::planning
