#pragma once

#include "atelier/ops/torch.h"

namespace atelier::ops {

/// Group normalisation of `x` [N,C,H,W] with `weight` and `bias` [C]; then, where `modulation` [N,2C] is defined, norm*(1+scale)+shift with
/// scale its first half and shift its second; then SiLU if asked. One pass forward and one backward on CPUs for float32 and bfloat16,
/// channels last (which the result is, too); LibTorch's own operations everywhere else and wherever NormFromParts is alive.
Tensor fused_group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& modulation, std::int64_t groups,
                        double eps, bool silu);

/// While alive, this thread normalises by LibTorch's own operations, whose gradients can be differentiated again (R1 needs that).
class NormFromParts {
public:
    explicit NormFromParts(bool active = true);
    ~NormFromParts();
    static bool alive();
    /// For a backward pass that has none itself: a slope of a slope would come out wrong and say nothing. Throws core::Error where one is being prepared; `whose` begins the message.
    static void refuse_second_slope(const char* whose);
    NormFromParts(const NormFromParts&) = delete;
    NormFromParts& operator=(const NormFromParts&) = delete;

private:
    bool before_;
};

}  // namespace atelier::ops
