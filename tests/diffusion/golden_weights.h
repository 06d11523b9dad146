#pragma once

#include <cmath>
#include <span>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/hash.h"
#include "atelier/graph/graph.h"

namespace atelier::diffusion {

/// `weights` of scripts/golden_weights.py: splitmix64 that starts at the name's hash.
inline Tensor golden_weights(const std::string& name, const graph::Shape& shape) {
    const Tensor values = at::empty(shape, at::kFloat);
    const bool vector = shape.size() == 1;
    const double width = name.ends_with(".freqs") ? 16
                         : vector                 ? 0.25
                                  : std::sqrt(3.0 / static_cast<double>(values.numel() / shape[0]));
    const double centre = vector && name.ends_with(".weight") ? 1.0 : 0.0;
    std::uint64_t state = core::fnv1a(name);
    for (float& number :
         std::span(values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel()))) {
        state += 0x9E3779B97F4A7C15U;
        std::uint64_t z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9U;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
        z ^= z >> 31;
        number =
            static_cast<float>(centre + width * (static_cast<double>(z >> 40) / (1 << 23) - 1));
    }
    return values;
}

}  // namespace atelier::diffusion
