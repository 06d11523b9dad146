#pragma once

#include "atelier/graph/builder.h"

namespace atelier::networks {

/// The GAN head on a denoiser's bottleneck (tianweiy/DMD2:main/edm/edm_guidance.py): `h` [N,C,H,W]
/// or [N,F] -> one logit per sample, [N,1]. Images: a strided convolution where H > 4, one over the
/// remaining pixels, then 1x1, with norms and SiLU between; features: two hidden layers. Parameter
/// names begin with "head.".
graph::Value discriminator_head(graph::Builder& ops, const graph::Value& bottleneck);

}  // namespace atelier::networks
