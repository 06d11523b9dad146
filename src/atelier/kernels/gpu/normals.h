#pragma once

#include <array>
#include <cstdint>

#include "atelier/kernels/gpu/launcher.h"

namespace atelier::kernels::gpu {

/// Sets out[i], `count` of them, to number `first` + i of the normal numbers of the
/// core::RandomStream with this key and index, with the bits that its fill_normal gives.
void fill_normal(const Launcher& launcher, const std::array<std::uint32_t, 2>& key,
                 std::uint64_t index, std::uint64_t first, std::uint64_t count, float* out);

}  // namespace atelier::kernels::gpu
