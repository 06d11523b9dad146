#pragma once

#include "atelier/backends/torch/torch.h"
#include "atelier/kernels/gpu/launcher.h"

namespace atelier::backends {

/// Whether gpu_group_norm takes such tensors: `x` [N,C,H,W] float32 or bfloat16 of possible sizes,
/// `weight` and `bias` float32.
bool can_gpu_group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        std::int64_t groups);

/// fused_group_norm with the kernels of kernels/gpu: three launches forward, three or four
/// backward. All tensors are where `launcher` computes, which must outlive the backward pass.
/// Returns [N,C,H,W], channels last, of x's type.
Tensor gpu_group_norm(const kernels::gpu::Launcher& launcher, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const Tensor& modulation, std::int64_t groups, double eps,
                      bool silu);

}  // namespace atelier::backends
