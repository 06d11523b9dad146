#pragma once

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

/// Whether fused_attention supports `qkv`: 4-dimensional float32 or bfloat16 on the CPU.
bool can_fuse_attention(const Tensor& qkv);

/// graph::Attention of `qkv` [N,3C,H,W], forward and backward, one head of one sample at a time
/// within a thread's cache; returns [N,C,H,W], channels last. Scores are float32 and are recomputed
/// in the backward pass. Does not support double backward.
Tensor fused_attention(const Tensor& qkv, std::int64_t heads);

}  // namespace atelier::backends
