#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "atelier/core/json_file.h"
#include "atelier/ops/torch.h"

namespace atelier::diffusion {

/// Stable Diffusion's noise: x_t = alpha_t x_0 + sigma_t z at whole time steps, with alpha_t^2 the product of 1 - beta (Ho et al. 2020).
struct DdpmSchedule {
    enum class Prediction { noise, velocity };  // velocity: alpha_t z - sigma_t x_0 (Salimans and Ho 2022)
    enum class Spacing { leading, linspace, trailing };

    std::vector<double> signal;  // alpha_t^2, by time step
    Prediction prediction = Prediction::noise;
    std::optional<Spacing> spacing;  // without: each sampler's own
    std::int64_t offset = 0;
    bool ends_clean = true;               // DDIM's last step goes to no noise at all, else to time step 0
    std::optional<double> clip = 1.0;     // DDIM's estimates are held within +- this

    /// Reads a scheduler_config.json, as diffusers' DDIM and DPM-Solver++ would. Throws core::Error naming file and key on what is not supported.
    static DdpmSchedule of(const core::JsonObject& config);

    bool operator==(const DdpmSchedule&) const = default;

    std::int64_t steps() const { return static_cast<std::int64_t>(signal.size()); }
};

/// What a network predicts of `x` [N,...] at one time step for all, shaped like x.
using Predictor = std::function<Tensor(const Tensor& x, std::int64_t t)>;

/// The time steps that a sampler visits, decreasing. Throws core::UsageError when `count` of them do not fit the schedule.
std::vector<std::int64_t> ddim_times(const DdpmSchedule& schedule, std::int64_t count);
std::vector<std::int64_t> dpm_times(const DdpmSchedule& schedule, std::int64_t count);

/// DDIM without fresh noise (Song et al. 2021): `noise` standard normal -> samples, in `count` evaluations.
Tensor sample_ddim(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise, std::int64_t count);

/// DPM-Solver++(2M), midpoint form, the last step of first order (Lu et al. 2022).
Tensor sample_dpm(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise, std::int64_t count);

}  // namespace atelier::diffusion
