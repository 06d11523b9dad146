#pragma once

#include <optional>
#include <span>

#include "atelier/core/json_file.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/diffusion/noise_levels.h"
#include "atelier/ops/torch.h"

namespace atelier::diffusion {

/// How a network F becomes a denoiser, D = c_skip x_t + c_out F(c_in x_t; c_noise, c) (Karras et al. 2022, table 1). Each is [N], like sigma.
struct Preconditioning {
    Tensor c_skip, c_out, c_in, c_noise;
};

/// Which preconditioning, with its constants. Of models with a DDPM schedule the samples here are x_0 + sigma z, which is their x_t over alpha_t, with
/// sigma = sigma_t / alpha_t: one way to write what is noised serves all.
struct Scheme {
    enum class Kind { edm, vp, ve, ddpm };
    Kind kind = Kind::edm;
    double sigma_data = 0.5;               // EDM's; of all, for loss weights
    double beta_d = 19.9, beta_min = 0.1;  // VP's noise schedule
    double timesteps = 1000;               // VP's M: c_noise goes up to M - 1
    std::optional<DdpmSchedule> schedule{};  // DDPM's; c_noise is the time step, between two levels of the schedule a broken one

    bool operator==(const Scheme&) const = default;
};

/// Reads `preconditioning` ("edm" where absent, "vp", "ve", "ddpm") and the scheme's constants of a config.json (DDPM's in `scheduler`, as diffusers has them). Throws core::Error naming file and key.
Scheme read_scheme(const core::JsonObject& config);

/// The noise levels that the scheme's models are trained for: VP from t = 1e-5 to 1, DDPM at its time steps.
NoiseRange usual_range(const Scheme& scheme);

/// `sigma` [N], positive. In the type of sigma; float32 rounds c_noise as EDM does.
Preconditioning precondition(const Tensor& sigma, const Scheme& scheme);

/// Loss weight of denoising, (sigma^2 + sd^2) / (sigma sd)^2 = 1/sigma^2 + 1/sd^2, [N]: of the teacher's training and TSM (EDM) and of
/// the fake score's (DMD2).
Tensor edm_loss_weight(const Tensor& sigma, double sigma_data);

/// Weight of |D - x|^2 in training, [N]: EDM's, or for DDPM 1/c_out^2, which makes it the error of what the network predicts (eps-MSE).
Tensor denoising_weight(const Tensor& sigma, const Scheme& scheme);

/// The 1000 levels that distillation chooses from, increasing: Karras's over `range`, or DDPM's own.
std::vector<double> matching_levels(const Scheme& scheme, const NoiseRange& range);

/// Uniform over indices `first`..`last` of `levels`, [count] float32.
Tensor indexed_levels(core::RandomStream& stream, std::int64_t count, std::span<const double> levels, std::int64_t first, std::int64_t last);

/// Levels that a diffusion model is trained at, [count] float32: ln sigma ~ N(mean, deviation^2), or for DDPM its time steps alike.
Tensor training_levels(core::RandomStream& stream, std::int64_t count, const Scheme& scheme, double mean, double deviation);

/// [N] made to broadcast against `like` [N,...].
Tensor along(const Tensor& per_sample, const Tensor& like);

}  // namespace atelier::diffusion
