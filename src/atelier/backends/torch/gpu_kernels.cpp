#include "atelier/backends/torch/gpu_kernels.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "atelier/backends/torch/deterministic.h"
#include "atelier/backends/torch/gpu_norm.h"
#include "atelier/backends/torch/libraries.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/random_streams.h"
#include "atelier/kernels/gpu/adamw.h"
#include "atelier/kernels/gpu/driver_launcher.h"
#include "atelier/kernels/gpu/normals.h"

namespace atelier::backends {

namespace {

namespace gpu = kernels::gpu;

/// Standard normal float32 numbers that follow from `name`.
Tensor numbers_for_check(const char* name, std::vector<std::int64_t> shape, at::Device device) {
    Tensor values = at::empty(shape, at::kFloat);
    core::RandomStream(0, name).fill_normal(
        {values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    return values.to(device);
}

/// Whether `actual` is `expected` within `tolerance` of its norm.
bool close_to(const Tensor& actual, const Tensor& expected, double tolerance) {
    const Tensor difference = actual.to(at::kDouble) - expected.to(at::kDouble);
    return difference.norm().item<double>() <=
           tolerance * expected.to(at::kDouble).norm().item<double>();
}

/// y and the gradients of x, weight, bias and, where there is one, modulation.
template <class Function>
std::vector<Tensor> outputs_for_check(const Function& function, const std::vector<Tensor>& inputs,
                                      const Tensor& dy) {
    const at::AutoGradMode gradients(true);
    std::vector<Tensor> leaves;
    for (const Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_());
    const Tensor y = function(leaves);
    std::vector<Tensor> all{y};
    for (Tensor& gradient :
         torch::autograd::grad({y}, leaves, {dy.to(y.scalar_type())}, std::nullopt, false))
        all.push_back(gradient);
    return all;
}

std::string norm_disagreement(const gpu::Launcher& launcher, at::Device device,
                              std::int64_t channels, std::int64_t groups, at::ScalarType type,
                              bool modulated) {
    constexpr double eps = 1e-5;
    std::vector<Tensor> inputs{
        (numbers_for_check("x", {2, channels, 20, 20}, device) * 2 + 0.5).to(type),
        numbers_for_check("weight", {channels}, device) + 1,
        numbers_for_check("bias", {channels}, device)};
    if (modulated)
        inputs.push_back(numbers_for_check("modulation", {2, 2 * channels}, device).to(type));
    const Tensor dy = numbers_for_check("dy", {2, channels, 20, 20}, device).to(type);
    const auto ours = outputs_for_check(
        [&](const std::vector<Tensor>& in) {
            return gpu_group_norm(launcher, in[0], in[1], in[2], modulated ? in[3] : Tensor(),
                                  groups, eps, true);
        },
        inputs, dy);
    std::vector<Tensor> exact;
    for (const Tensor& input : inputs) exact.push_back(input.to(at::kDouble));
    const auto theirs = outputs_for_check(
        [&](const std::vector<Tensor>& in) {
            Tensor y = at::group_norm(in[0], groups, in[1], in[2], eps);
            if (modulated) {
                const auto halves = in[3].unsqueeze(2).unsqueeze(3).chunk(2, 1);
                y = y * (halves[0] + 1) + halves[1];
            }
            return at::silu(y);
        },
        exact, dy);
    for (std::size_t i = 0; i < ours.size(); ++i) {
        if (!close_to(ours[i], theirs[i], type == at::kFloat ? 1e-4 : 1e-2)) {
            return fmt::format("group normalisation of {} channels in {}, {}", channels,
                               c10::toString(type),
                               i == 0 ? "forward" : fmt::format("gradient of input {}", i - 1));
        }
    }
    return "";
}

std::string adamw_disagreement(const gpu::Launcher& launcher, at::Device device) {
    const auto state = [&] {
        return std::vector<Tensor>{numbers_for_check("parameter", {5000}, device),
                                   numbers_for_check("gradient", {5000}, device),
                                   numbers_for_check("first", {5000}, device),
                                   numbers_for_check("second", {5000}, device).square(),
                                   numbers_for_check("average", {5000}, device)};
    };
    const auto scalar = [&](double value) {
        return at::full({}, value, at::TensorOptions().dtype(at::kFloat).device(device));
    };
    const std::vector<Tensor> ours = state(), theirs = state();
    const Tensor step = scalar(7), scale = scalar(4), found = scalar(0);
    const Tensor copy = at::empty_like(ours[0], at::kBFloat16);
    gpu_adamw(launcher, {0.9,
                         0.99,
                         0.01,
                         1e-8,
                         {ours[0]},
                         {ours[1]},
                         {ours[2]},
                         {ours[3]},
                         {copy},
                         {{ours[4]}},
                         {0.25},
                         step,
                         scalar(0.1),
                         scale,
                         found});
    at::_fused_adamw_({theirs[0]}, {theirs[1] / scale}, {theirs[2]}, {theirs[3]}, {}, {step}, 0.1,
                      0.9, 0.99, 0.01, 1e-8, false, false, std::nullopt, std::nullopt);
    theirs[4].lerp_(theirs[0], 0.75);
    for (const std::size_t i : {0, 2, 3, 4}) {
        if (!close_to(ours[i], theirs[i], 1e-5)) return "AdamW";
    }
    return copy.equal(ours[0].to(at::kBFloat16)) ? "" : "AdamW's bfloat16 copy";
}

std::string normals_disagreement(const gpu::Launcher& launcher, at::Device device) {
    const Tensor expected = numbers_for_check("normals", {100003}, at::kCPU);
    const core::RandomStream stream(0, "normals");
    const Tensor actual =
        gpu_normals(launcher, device, std::span(&stream, 1), 0, expected.numel())[0].cpu();
    return actual.view(at::kInt).equal(expected.view(at::kInt)) ? "" : "normal numbers";
}

/// What set_gpu_kernels() gave for a type of device.
std::atomic<const gpu::Launcher*>& given_kernels(at::DeviceType type) {
    static std::array<std::atomic<const gpu::Launcher*>, at::COMPILE_TIME_MAX_DEVICE_TYPES> all{};
    return all.at(static_cast<std::size_t>(type));
}

/// Compiled and checked kernels, or null after a line in the log.
std::unique_ptr<const gpu::Launcher> opened(at::Device device) {
    const char* variable = std::getenv("ATELIER_GPU_KERNELS");
    if (variable && std::string_view(variable) == "off") return nullptr;
    std::string why;
    try {
        const c10::DeviceGuard guard(device);
        const c10::InferenceMode off(false);  // the check needs autograd, whoever calls
        const gpu::Compiler compiler(gpu::nvrtc_candidates(torch_library_folder()));
        auto launcher = std::make_unique<gpu::DriverLauncher>(compiler, device.index(), [device] {
            return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
        });
        why = gpu_kernel_disagreement(*launcher, device);
        if (why.empty()) {
            core::log::info("{}: our kernels are used, compiled for {} by NVRTC {}", device.str(),
                            launcher->architecture(), compiler.version());
            return launcher;
        }
        why = "they disagree with LibTorch's operations in " + why;
    } catch (const std::exception& error) {
        why = error.what();
    }
    core::log::warning("{}: our kernels are not used, LibTorch's operations are: {}", device.str(),
                       why);
    return nullptr;
}

float* floats_of(const Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

void check_like(const Tensor& tensor, const Tensor& parameter, at::ScalarType type,
                const char* what) {
    if (tensor.scalar_type() != type || tensor.sizes() != parameter.sizes() ||
        tensor.strides() != parameter.strides() || tensor.device() != parameter.device())
        core::fail("AdamW: {} must have type {} and its parameter's shape, strides and device",
                   what, c10::toString(type));
}

const float* scalar_of(const Tensor& tensor, const char* what) {
    if (tensor.scalar_type() != at::kFloat || tensor.numel() != 1)
        core::fail("AdamW: {} must be one float32 number", what);
    return tensor.const_data_ptr<float>();
}

}  // namespace

std::string gpu_kernel_disagreement(const gpu::Launcher& launcher, at::Device device) {
    const at::NoGradGuard no_gradients;
    const Deterministic filled;  // at::empty is NaN: no kernel passes by an earlier one's results
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        for (const bool modulated : {false, true}) {
            for (const auto& [channels, groups] : {std::pair{96, 24}, {7, 7}}) {
                const std::string why =
                    norm_disagreement(launcher, device, channels, groups, type, modulated);
                if (!why.empty()) return why;
            }
        }
    }
    const std::string why = adamw_disagreement(launcher, device);
    return why.empty() ? normals_disagreement(launcher, device) : why;
}

const gpu::Launcher* gpu_kernels(at::Device device) {
    if (const gpu::Launcher* given = given_kernels(device.type())) return given;
    if (!device.is_cuda()) return nullptr;
    struct Slot {
        std::once_flag once;
        std::unique_ptr<const gpu::Launcher> launcher;
    };
    // Never destroyed: the driver may be gone by then.
    static auto& slots = *new std::array<Slot, 64>;
    Slot& slot = slots.at(static_cast<std::size_t>(device.index()));
    std::call_once(slot.once, [&] { slot.launcher = opened(device); });
    return slot.launcher.get();
}

void set_gpu_kernels(at::DeviceType type, const gpu::Launcher* launcher) {
    given_kernels(type) = launcher;
}

void gpu_adamw(const gpu::Launcher& launcher, const GpuAdamW& update) {
    std::vector<gpu::AdamWState> states;
    for (std::size_t i = 0; i < update.parameters.size(); ++i) {
        const Tensor& parameter = update.parameters[i];
        if (!parameter.is_non_overlapping_and_dense())
            core::fail("AdamW: a parameter must occupy memory without gaps");
        check_like(parameter, parameter, at::kFloat, "a parameter");
        check_like(update.gradients.at(i), parameter, at::kFloat, "a gradient");
        check_like(update.first_moments.at(i), parameter, at::kFloat, "a first moment");
        check_like(update.second_moments.at(i), parameter, at::kFloat, "a second moment");
        gpu::AdamWState state{floats_of(parameter),
                              update.gradients[i].const_data_ptr<float>(),
                              floats_of(update.first_moments[i]),
                              floats_of(update.second_moments[i]),
                              {},
                              nullptr,
                              parameter.numel()};
        for (const std::vector<Tensor>& average : update.averages) {
            check_like(average.at(i), parameter, at::kFloat, "an average");
            state.averages.push_back(floats_of(average[i]));
        }
        if (!update.copies.empty()) {
            check_like(update.copies.at(i), parameter, at::kBFloat16, "a copy");
            state.copy = update.copies[i].mutable_data_ptr();
        }
        states.push_back(std::move(state));
    }
    const gpu::AdamWScalars scalars{
        scalar_of(update.step, "the step"), scalar_of(update.rate, "the rate"),
        update.grad_scale.defined() ? scalar_of(update.grad_scale, "the loss scale") : nullptr,
        update.found_inf.defined() ? scalar_of(update.found_inf, "found_inf") : nullptr};
    gpu::adamw(launcher,
               {static_cast<float>(update.beta1), static_cast<float>(update.beta2),
                static_cast<float>(update.weight_decay), static_cast<float>(update.eps),
                update.average_decays},
               scalars, states);
}

Tensor gpu_normals(const gpu::Launcher& launcher, at::Device device,
                   std::span<const core::RandomStream> streams, std::int64_t first,
                   std::int64_t count) {
    Tensor out = at::empty({static_cast<std::int64_t>(streams.size()), count},
                           at::TensorOptions().dtype(at::kFloat).device(device));
    auto* numbers = out.mutable_data_ptr<float>();
    for (const core::RandomStream& stream : streams) {
        gpu::fill_normal(launcher, stream.key(), stream.index(), static_cast<std::uint64_t>(first),
                         static_cast<std::uint64_t>(count), numbers);
        numbers += count;
    }
    return out;
}

}  // namespace atelier::backends
