#include "atelier/kernels/gpu/adamw.h"

#include <algorithm>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/kernels/gpu/adamw_kernels.h"

namespace atelier::kernels::gpu {

namespace {

constexpr std::size_t max_averages = AdamWTensor::max_averages;

AdamWArguments arguments_for(const AdamWSettings& settings, const AdamWScalars& scalars,
                             std::size_t first_average) {
    AdamWArguments a{};
    a.average_only = first_average > 0 ? 1 : 0;
    a.beta1 = settings.beta1;
    a.beta2 = settings.beta2;
    a.weight_decay = settings.weight_decay;
    a.eps = settings.eps;
    a.step = scalars.step;
    a.rate = scalars.rate;
    a.grad_scale = scalars.grad_scale;
    a.found_inf = scalars.found_inf;
    const std::size_t left = settings.average_decays.size() - first_average;
    std::copy_n(settings.average_decays.begin() + static_cast<std::ptrdiff_t>(first_average),
                std::min(max_averages, left), a.average_decays);
    return a;
}

AdamWTensor tensor_for(const AdamWState& state, std::size_t first_average) {
    AdamWTensor tensor{};
    tensor.parameter = state.parameter;
    tensor.gradient = state.gradient;
    tensor.first_moment = state.first_moment;
    tensor.second_moment = state.second_moment;
    tensor.copy = static_cast<Bfloat16*>(state.copy);
    tensor.count = state.count;
    for (std::size_t i = first_average; i < state.averages.size(); ++i) {
        if (i - first_average < max_averages)
            tensor.averages[i - first_average] = state.averages[i];
    }
    return tensor;
}

void launch(const Launcher& launcher, AdamWArguments& a, int blocks) {
    if (blocks == 0) return;
    launcher.launch("adamw_update", {static_cast<unsigned>(blocks)}, AdamWUpdate::threads, a);
}

}  // namespace

void adamw(const Launcher& launcher, const AdamWSettings& settings, const AdamWScalars& scalars,
           std::span<const AdamWState> tensors) {
    const std::size_t averages = settings.average_decays.size();
    for (const AdamWState& state : tensors) {
        if (state.averages.size() != averages)
            core::fail("{} averages for {} decays", state.averages.size(), averages);
    }
    for (std::size_t first = 0; first == 0 || first < averages; first += max_averages) {
        AdamWArguments a = arguments_for(settings, scalars, first);
        int blocks = 0;
        for (const AdamWState& state : tensors) {
            if (state.count == 0) continue;
            a.tensors[a.tensor_count] = tensor_for(state, first);
            blocks += static_cast<int>((state.count + AdamWUpdate::per_block - 1) /
                                       AdamWUpdate::per_block);
            a.first_block[++a.tensor_count] = blocks;
            if (a.tensor_count == AdamWArguments::max_tensors) {
                launch(launcher, a, std::exchange(blocks, 0));
                a.tensor_count = 0;
            }
        }
        launch(launcher, a, blocks);
    }
}

}  // namespace atelier::kernels::gpu
