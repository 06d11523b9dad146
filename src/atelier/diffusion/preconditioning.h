#pragma once

#include "atelier/core/json_file.h"
#include "atelier/diffusion/noise_levels.h"
#include "atelier/ops/torch.h"

namespace atelier::diffusion {

/// How a network F becomes a denoiser, D = c_skip x_t + c_out F(c_in x_t; c_noise, c) (Karras et al. 2022, table 1). Each is [N], like sigma.
struct Preconditioning {
    Tensor c_skip, c_out, c_in, c_noise;
};

/// Which preconditioning, with its constants.
struct Scheme {
    enum class Kind { edm, vp, ve };
    Kind kind = Kind::edm;
    double sigma_data = 0.5;               // EDM's; of all, for loss weights
    double beta_d = 19.9, beta_min = 0.1;  // VP's noise schedule
    double timesteps = 1000;               // VP's M: c_noise goes up to M - 1

    bool operator==(const Scheme&) const = default;
};

/// Reads `preconditioning` ("edm" where absent, "vp", "ve") and the scheme's constants of a config.json. Throws core::Error naming file and key.
Scheme read_scheme(const core::JsonObject& config);

/// The noise levels that the scheme's models are trained for: VP from t = 1e-5 to 1.
NoiseRange usual_range(const Scheme& scheme);

/// `sigma` [N], positive. In the type of sigma; float32 rounds c_noise as EDM does.
Preconditioning precondition(const Tensor& sigma, const Scheme& scheme);

/// Loss weight of denoising, (sigma^2 + sd^2) / (sigma sd)^2 = 1/sigma^2 + 1/sd^2, [N]: of the teacher's training and TSM (EDM) and of
/// the fake score's (DMD2).
Tensor edm_loss_weight(const Tensor& sigma, double sigma_data);

/// [N] made to broadcast against `like` [N,...].
Tensor along(const Tensor& per_sample, const Tensor& like);

}  // namespace atelier::diffusion
