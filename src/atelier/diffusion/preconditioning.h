#pragma once

#include "atelier/ops/torch.h"

namespace atelier::diffusion {

/// EDM's preconditioning (Karras et al. 2022, table 1): D = c_skip x_t + c_out F(c_in x_t; c_noise, c). Each is [N], like sigma.
struct Preconditioning {
    Tensor c_skip, c_out, c_in, c_noise;
};

/// `sigma` [N], positive.
Preconditioning edm_preconditioning(const Tensor& sigma, double sigma_data);

/// Loss weight of denoising, (sigma^2 + sd^2) / (sigma sd)^2 = 1/sigma^2 + 1/sd^2, [N]: of the teacher's training and TSM (EDM) and of
/// the fake score's (DMD2).
Tensor edm_loss_weight(const Tensor& sigma, double sigma_data);


/// [N] made to broadcast against `like` [N,...].
Tensor along(const Tensor& per_sample, const Tensor& like);

}  // namespace atelier::diffusion
