#pragma once

#include <string>

#include "atelier/ops/ops.h"

namespace atelier::networks {

struct UNetBlock {
    std::int64_t out_channels;
    ops::Resample resample = ops::Resample::none;  // of the input, before the first convolution and on the skip
    bool attention = false;                        // where there are channels for a head at all
};

struct UNetNorm {
    bool silu = false;
    const ops::Value* modulation = nullptr;
};

/// The residual block of the ADM U-Net (method.md section 6): `x` [N,C,H,W], `embedding` [N,E].
ops::Value unet_block(ops::Ops& ops, const ops::Value& x, const ops::Value& embedding, const std::string& name,
                      const UNetBlock& options);

/// One head for every 64 channels (EDM's rule): none below 64, and then a block does not attend.
std::int64_t attention_heads(std::int64_t channels);

/// GroupNorm with min(32, C/4) groups, eps 1e-5.
ops::Value unet_norm(ops::Ops& ops, const ops::Value& x, const std::string& name, const UNetNorm& options = {});

}  // namespace atelier::networks
