#pragma once

#include <cstdint>

#include "atelier/kernels/gpu/group_norm_kernels.h"
#include "atelier/kernels/gpu/launcher.h"

namespace atelier::kernels::gpu {

/// The type of x, y and their gradients.
enum class ElementType { float32, bfloat16 };

struct GroupNormSizes {
    std::int64_t samples, positions, channels, groups;  // positions: H*W
};

/// Whether the kernels take samples of these sizes: all at least 1, `channels` a multiple of
/// `groups`, and within the limits of their integers and of a GPU's grid.
bool can_group_norm(const GroupNormSizes& sizes);

/// Arguments with sizes and without pointers. `sizes` must be possible.
GroupNormArguments group_norm_arguments(const GroupNormSizes& sizes, float eps, bool silu);

/// How many floats `partial` must hold.
std::int64_t group_norm_partial_size(const GroupNormArguments& arguments);

/// Sets y, mean and rstd from x, weight, bias and modulation; needs `partial`.
void group_norm_forward(const Launcher& launcher, ElementType type,
                        const GroupNormArguments& arguments);

/// Sets y (dx) and, where there is a modulation, dmodulation from x, dy, weight, bias, modulation,
/// mean and rstd; needs `partial`, `totals` and `terms`. Sets dweight and dbias unless both are
/// null.
void group_norm_backward(const Launcher& launcher, ElementType type,
                         const GroupNormArguments& arguments);

}  // namespace atelier::kernels::gpu
