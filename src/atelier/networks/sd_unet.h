#pragma once

#include "atelier/core/json_file.h"
#include "atelier/networks/sd_blocks.h"

namespace atelier::networks {

/// Stable Diffusion's U-Net (Rombach et al. 2022) as diffusers' UNet2DConditionModel has it, with its tensors' names.
struct SdUnet {
    struct Block {
        std::int64_t channels, layers, heads, transformers;
        bool attends;
    };
    std::int64_t in_channels = 4, out_channels = 4, sample_size = 64, context_width = 768;
    std::vector<Block> down;       // from the largest size to the smallest; of `up`, which mirrors them, `attends` is apart
    std::vector<bool> up_attends;  // from the smallest size to the largest
    SdNorm norm{};
    bool cosines_first = true, whole_shift = false, linear_projections = false;

    /// Reads a unet/config.json. Throws core::Error naming file and key, on options that are not supported too.
    static SdUnet of(const core::JsonObject& config);

    /// Height and width of samples must be multiples of this.
    std::int64_t factor() const { return std::int64_t{1} << (down.size() - 1); }

    /// `x` [N,in_channels,H,W], `t` [N] time steps, `hidden` [N,T,context_width] states of the text -> [N,out_channels,H,W].
    ops::Value forward(ops::TokenOps& tokens, const ops::Value& x, const ops::Value& t, const ops::Value& hidden) const;
};

}  // namespace atelier::networks
