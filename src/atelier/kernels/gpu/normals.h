#pragma once

#include <cstdint>
#include <string_view>

#include "atelier/kernels/gpu/launcher.h"

namespace atelier::kernels::gpu {

/// Sets out[i], `count` of them, to number `first` + i of the normal numbers of
/// core::RandomStream(seed, name, index), with the bits that its fill_normal gives.
void fill_normal(const Launcher& launcher, std::uint64_t seed, std::string_view name,
                 std::uint64_t index, std::uint64_t first, std::uint64_t count, float* out);

}  // namespace atelier::kernels::gpu
