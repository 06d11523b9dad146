#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "atelier/backends/torch/torch.h"

namespace atelier::inference {

/// How many images of height x width pixels Stable Diffusion's U-Net and autoencoder compute
/// together. On a CPU one, so that an image does not depend on which others were asked for; on
/// accelerators, which one image leaves idle, as many as have 2^20 pixels together (4 of 512x512),
/// a power of two and at most 64.
inline std::int64_t images_together(at::Device device, std::int64_t height, std::int64_t width) {
    constexpr std::int64_t pixels = std::int64_t{1} << 20, most = 64;
    if (device.is_cpu()) return 1;
    const std::int64_t count = std::clamp<std::int64_t>(pixels / (height * width), 1, most);
    return static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(count)));
}

}  // namespace atelier::inference
