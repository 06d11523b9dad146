#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "atelier/kernels/gpu/launcher.h"

namespace atelier::kernels::gpu {

struct AdamWSettings {
    float beta1, beta2, weight_decay, eps;
    std::vector<double> average_decays;  // of the averages of each tensor
};

/// Single values where the kernel runs, so that the host waits for none of them.
struct AdamWScalars {
    const float* step;                  // the number of this update, from 1
    const float* rate;                  // the learning rate
    const float* grad_scale = nullptr;  // what gradients are divided by; null: 1
    const float* found_inf = nullptr;   // where it is not 0 nothing is written; null: 0
};

/// One tensor's elements, in the same order behind all pointers.
struct AdamWState {
    float* parameter;
    const float* gradient;
    float* first_moment;
    float* second_moment;
    std::vector<float*> averages;  // as many as AdamWSettings has decays
    void* copy = nullptr;          // the new parameter in bfloat16; null: none
    std::int64_t count;
};

/// Updates `tensors` by AdamW with decoupled weight decay, as LibTorch's _fused_adamw_ does, then
/// their averages with decay min(decay, (1 + step) / (10 + step)). Launches one kernel for 48
/// tensors and three averages.
void adamw(const Launcher& launcher, const AdamWSettings& settings, const AdamWScalars& scalars,
           std::span<const AdamWState> tensors);

}  // namespace atelier::kernels::gpu
