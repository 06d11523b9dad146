#pragma once

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

/// Group normalisation of `x` [N,C,H,W] with `weight` and `bias` [C]; then, where `modulation`
/// [N,2C] is defined, norm*(1+scale)+shift with scale its first half and shift its second; then
/// SiLU if `silu`. Returns [N,C,H,W]. One pass forward and one backward on CPUs for float32 and
/// bfloat16, channels last (as is the result); LibTorch's own operations otherwise and while a
/// DoubleBackwardGuard is alive.
Tensor fused_group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Tensor& modulation, std::int64_t groups, double eps, bool silu);

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
