#pragma once

#include <optional>

#include "atelier/ops/ops.h"

/// Blocks that Stable Diffusion's U-Net and autoencoder share.
namespace atelier::networks {

struct SdNorm {
    std::int64_t groups = 32;
    double eps = 1e-5;
};

/// diffusers' ResnetBlock2D: norm, SiLU, convolution, twice, with the time embedding [N,E] added
/// between where there is one.
ops::Value sd_resnet(ops::Ops& ops, const ops::Value& x, const std::optional<ops::Value>& embedding,
                     const std::string& name, std::int64_t out_channels, const SdNorm& norm);

/// Halves the size: a convolution of stride 2 with zero padding of one pixel.
ops::Value sd_downsample(ops::Ops& ops, const ops::Value& x, const std::string& name);

/// Doubles the size: repeats pixels, then a convolution.
ops::Value sd_upsample(ops::Ops& ops, const ops::Value& x, const std::string& name);

}  // namespace atelier::networks
