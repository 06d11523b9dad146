#pragma once

#include "atelier/diffusion/ddpm_schedule.h"

namespace atelier::diffusion {

/// The noise levels of Stable Diffusion 3 as diffusers' FlowMatchEulerDiscreteScheduler has them:
/// x_t = (1 - t) x_0 + t z, and the network predicts the velocity z - x_0 at 1000 t.
struct FlowSchedule {
    std::int64_t steps = 1000;  // in training
    double shift = 1;           // of levels t to shift t / (1 + (shift - 1) t) (Esser et al. 2024)

    /// Reads a scheduler_config.json. Throws core::Error naming file and key if a setting is not
    /// supported.
    static FlowSchedule of(const core::JsonObject& config);

    bool operator==(const FlowSchedule&) const = default;
};

/// The levels that Euler's method visits in `count` steps, decreasing, and a final 0, and the times
/// at which the network is evaluated.
struct EulerLevels {
    std::vector<double> levels, times;
};

/// Throw core::UsageError if the schedule has too few levels for `count` steps. Of a DDPM schedule
/// levels are sigma_t / alpha_t, of a flow t.
EulerLevels euler_levels(const DdpmSchedule& schedule, std::int64_t count);
EulerLevels euler_levels(const FlowSchedule& schedule, std::int64_t count);

/// Euler's method, without added noise, as diffusers' EulerDiscreteScheduler and
/// FlowMatchEulerDiscreteScheduler take their steps. `noise` [N,...] is standard normal; `count`
/// evaluations.
Tensor sample_euler(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise,
                    std::int64_t count);
Tensor sample_euler(const FlowSchedule& schedule, const Predictor& predict, const Tensor& noise,
                    std::int64_t count);

}  // namespace atelier::diffusion
