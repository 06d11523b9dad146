#pragma once

#include "atelier/ops/torch.h"

namespace atelier::ops {

/// Whether fused_attention takes `qkv`: 4-dimensional float32 or bfloat16 on the CPU.
bool can_fuse_attention(const Tensor& qkv);

/// Ops::attention of `qkv` [N,3C,H,W], channels last (which the result is, too), forward and backward, a head of a sample at a time in a thread's cache. Scores are float32 and are computed
/// again for the backward pass. It cannot be differentiated twice.
Tensor fused_attention(const Tensor& qkv, std::int64_t heads);

}  // namespace atelier::ops
