#pragma once

#include <vector>

#include "atelier/networks/network.h"

namespace atelier::networks {

/// The ADM U-Net (Dhariwal & Nichol 2021) as trained by EDM, with EDM's parameter names under
/// "model.".
struct AdmUNetConfig {
    std::int64_t resolution = 64;  // of the data; the U-Net works at resolution / patch_size
    std::int64_t channels = 3;     // of the data; the U-Net sees channels * patch_size^2
    std::int64_t classes = 0;
    std::int64_t model_channels = 192;
    std::vector<std::int64_t> channel_mult{1, 2, 3, 4};
    std::int64_t num_blocks = 3;
    std::vector<std::int64_t> attention_resolutions{32, 16, 8};  // as the U-Net sees them
    std::int64_t channel_mult_emb = 4;
    std::int64_t patch_size = 1;  // patches of the image become channels
    std::int64_t augment_dim = 0;
};

/// F(x; c_noise, labels): `x` [N,channels,resolution,resolution] -> the same shape, and the
/// bottleneck.
Outputs adm_unet(graph::Builder& ops, const AdmUNetConfig& config, const Inputs& inputs);

/// The output of the last encoder block, [N, C, resolution/patch_size/2^(levels-1), ...].
graph::Value adm_unet_bottleneck(graph::Builder& ops, const AdmUNetConfig& config,
                                 const Inputs& inputs);

/// Reads the keys of AdmUNetConfig from a model's config.json.
Network build_adm_unet(const core::JsonObject& config);

}  // namespace atelier::networks
