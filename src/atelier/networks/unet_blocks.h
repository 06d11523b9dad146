#pragma once

#include <string>

#include "atelier/ops/ops.h"

namespace atelier::networks {

struct UNetBlock {
    std::int64_t out_channels;
    ops::Resample resample = ops::Resample::none;  // of the input, before the first convolution and on the skip
    bool attention = false;                        // 64 channels a head
};

struct UNetNorm {
    bool silu = false;
    const ops::Value* modulation = nullptr;
};

/// The residual block of the ADM U-Net (method.md section 6): `x` [N,C,H,W], `embedding` [N,E].
ops::Value unet_block(ops::Ops& ops, const ops::Value& x, const ops::Value& embedding, const std::string& name,
                      const UNetBlock& options);

/// GroupNorm with min(32, C/4) groups, eps 1e-5.
ops::Value unet_norm(ops::Ops& ops, const ops::Value& x, const std::string& name, const UNetNorm& options = {});

}  // namespace atelier::networks
