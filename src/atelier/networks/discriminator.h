#pragma once

#include "atelier/ops/ops.h"

namespace atelier::networks {

/// The GAN head on a denoiser's bottleneck (tianweiy/DMD2:main/edm/edm_guidance.py): `h` [N,C,H,W] or [N,F] -> one logit a sample, [N,1].
/// Images: a strided convolution where there is room, one over what is left, then 1x1, with norms and SiLU between; features: two hidden
/// layers. Parameters stand under "head.".
ops::Value discriminator_head(ops::Ops& ops, const ops::Value& bottleneck);

}  // namespace atelier::networks
