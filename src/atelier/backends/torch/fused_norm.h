#pragma once

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

/// Group normalisation of `x` [N,C,H,W] with `weight` and `bias` [C]; then, where `modulation`
/// [N,2C] is defined, norm*(1+scale)+shift with scale its first half and shift its second; then
/// SiLU if `silu`. Returns [N,C,H,W]. One pass forward and one backward for float32 and bfloat16,
/// channels last (as is the result), on CPUs and, where our kernels are used, on GPUs; LibTorch's
/// own operations otherwise and while a DoubleBackwardGuard is alive.
Tensor fused_group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Tensor& modulation, std::int64_t groups, double eps, bool silu);

/// Whether channels should be innermost in what surrounds the normalisation of `x`, a convolution's
/// input: always on CPUs; on GPUs where fused_group_norm would use our kernels, since LibTorch's
/// have channels outermost there.
bool normalises_channels_last(const Tensor& x);

/// While alive, this thread uses LibTorch's own operations, which support double backward (R1 needs
/// it), instead of the fused ones.
class DoubleBackwardGuard {
public:
    explicit DoubleBackwardGuard(bool active = true);
    ~DoubleBackwardGuard();
    static bool alive();
    /// For a custom backward pass without a double backward: without this check second-order
    /// gradients would be silently wrong. Throws core::Error where one would be recorded; the
    /// message begins with `operation`.
    static void reject_double_backward(const char* operation);
    DoubleBackwardGuard(const DoubleBackwardGuard&) = delete;
    DoubleBackwardGuard& operator=(const DoubleBackwardGuard&) = delete;

private:
    bool before_;
};

}  // namespace atelier::backends
