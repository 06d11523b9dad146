#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/json_file.h"

namespace atelier::diffusion {

/// Stable Diffusion's noise: x_t = alpha_t x_0 + sigma_t z at whole time steps, with alpha_t^2 the
/// product of 1 - beta (Ho et al. 2020).
struct DdpmSchedule {
    /// epsilon: z; v_prediction: alpha_t z - sigma_t x_0 (Salimans and Ho 2022).
    enum class Prediction { epsilon, v_prediction };
    enum class Spacing { leading, linspace, trailing };

    std::vector<double> alphas_cumprod;  // alpha_t^2, by time step
    Prediction prediction = Prediction::epsilon;
    std::optional<Spacing> spacing;  // unset: each sampler's default
    std::int64_t offset = 0;
    bool set_alpha_to_one = true;      // DDIM's last step ends at alpha^2 = 1, else at time step 0
    std::optional<double> clip = 1.0;  // DDIM clamps its estimates of x_0 to +- this

    /// Reads a scheduler_config.json as diffusers' DDIM and DPM-Solver++ do. Throws core::Error
    /// naming file and key if a setting is not supported.
    static DdpmSchedule of(const core::JsonObject& config);

    bool operator==(const DdpmSchedule&) const = default;

    std::int64_t steps() const { return static_cast<std::int64_t>(alphas_cumprod.size()); }
};

/// A network's prediction for `x` [N,...] at time step `t`, the same for all samples and perhaps
/// fractional; shaped like x.
using Predictor = std::function<Tensor(const Tensor& x, double t)>;

/// The time steps that a sampler visits, decreasing. Throws core::UsageError if the schedule has
/// too few for `count` steps.
std::vector<std::int64_t> ddim_times(const DdpmSchedule& schedule, std::int64_t count);
std::vector<std::int64_t> dpm_times(const DdpmSchedule& schedule, std::int64_t count);

/// Deterministic DDIM, eta = 0 (Song et al. 2021): `noise` standard normal -> samples, in `count`
/// evaluations.
Tensor sample_ddim(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise,
                   std::int64_t count);

/// DPM-Solver++(2M), midpoint form, with a first-order last step (Lu et al. 2022). `noise` is
/// standard normal; `count` evaluations.
Tensor sample_dpm(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise,
                  std::int64_t count);

}  // namespace atelier::diffusion
