#pragma once

#include <optional>

#include "atelier/graph/builder.h"

/// Blocks that Stable Diffusion's U-Net and autoencoder share.
namespace atelier::networks {

struct SdNorm {
    std::int64_t groups = 32;
    double eps = 1e-5;
};

/// diffusers' ResnetBlock2D: norm, SiLU, convolution, twice, with the time embedding [N,E] added
/// between where there is one.
graph::Value sd_resnet(graph::Builder& ops, const graph::Value& x,
                       const std::optional<graph::Value>& embedding, const std::string& name,
                       std::int64_t out_channels, const SdNorm& norm);

/// Halves the size: a convolution of stride 2 with zero padding of one pixel.
graph::Value sd_downsample(graph::Builder& ops, const graph::Value& x, const std::string& name);

/// Doubles the size: repeats pixels, then a convolution.
graph::Value sd_upsample(graph::Builder& ops, const graph::Value& x, const std::string& name);

}  // namespace atelier::networks
