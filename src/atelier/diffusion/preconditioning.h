#pragma once

#include <optional>
#include <span>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/json_file.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/diffusion/noise_levels.h"

namespace atelier::diffusion {

/// The coefficients that turn a network F into a denoiser, D = c_skip x_t + c_out F(c_in x_t;
/// c_noise, c) (Karras et al. 2022, table 1). Each is [N], like sigma.
struct Preconditioning {
    Tensor c_skip, c_out, c_in, c_noise;
};

/// The kind of preconditioning and its constants. Noised samples are x_0 + sigma z for every kind;
/// for models with a DDPM schedule this is their x_t over alpha_t, with sigma = sigma_t / alpha_t.
struct Parametrisation {
    enum class Kind { edm, vp, ve, ddpm };
    Kind kind = Kind::edm;
    double sigma_data = 0.5;                 // EDM's; for all kinds, of loss weights
    double beta_d = 19.9, beta_min = 0.1;    // VP's noise schedule
    double timesteps = 1000;                 // VP's M: c_noise goes up to M - 1
    std::optional<DdpmSchedule> schedule{};  // DDPM's; c_noise is the time step, fractional between
                                             // two levels of the schedule

    bool operator==(const Parametrisation&) const = default;
};

/// Reads `preconditioning` ("edm" if absent, "vp", "ve", "ddpm") and its constants from a
/// config.json (DDPM's in `scheduler`, as in diffusers). Throws core::Error naming file and key.
Parametrisation read_parametrisation(const core::JsonObject& config);

/// The noise levels that models of this parametrisation are trained for: VP from t = 1e-5 to 1,
/// DDPM at its time steps.
NoiseRange default_range(const Parametrisation& parametrisation);

/// The coefficients at `sigma` [N], positive, in the type of sigma; float32 rounds c_noise as EDM
/// does.
Preconditioning precondition(const Tensor& sigma, const Parametrisation& parametrisation);

/// EDM's loss weight, (sigma^2 + sd^2) / (sigma sd)^2 = 1/sigma^2 + 1/sd^2, [N]: for training the
/// teacher, TSM and the fake score (DMD2).
Tensor edm_loss_weight(const Tensor& sigma, double sigma_data);

/// Weight of |D - x|^2 in training, [N]: EDM's, or for DDPM 1/c_out^2, which makes the loss the
/// error of the network's prediction (eps-MSE).
Tensor denoising_weight(const Tensor& sigma, const Parametrisation& parametrisation);

/// The 1000 levels that distillation draws from, increasing: Karras levels over `range`, or DDPM's
/// own.
std::vector<double> matching_levels(const Parametrisation& parametrisation,
                                    const NoiseRange& range);

/// `count` levels drawn uniformly from levels[first..last], [count] float32.
Tensor indexed_levels(core::RandomStream& stream, std::int64_t count,
                      std::span<const double> levels, std::int64_t first, std::int64_t last);

/// Noise levels for training a diffusion model, [count] float32: ln sigma ~ N(p_mean, p_std^2), or
/// for DDPM uniform over its time steps.
Tensor training_levels(core::RandomStream& stream, std::int64_t count,
                       const Parametrisation& parametrisation, double p_mean, double p_std);

/// `per_sample` [N] reshaped to broadcast against `like` [N,...].
Tensor expand_like(const Tensor& per_sample, const Tensor& like);

}  // namespace atelier::diffusion
