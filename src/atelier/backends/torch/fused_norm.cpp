#include "atelier/backends/torch/fused_norm.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "atelier/backends/torch/gpu_kernels.h"
#include "atelier/backends/torch/gpu_norm.h"
#include "atelier/backends/torch/parallel.h"
#include "atelier/backends/torch/tensor_data.h"
#include "atelier/backends/torch/torch_ops.h"
#include "atelier/core/error.h"
#include "atelier/kernels/norm_forward.h"
#include "atelier/kernels/workspace.h"

namespace atelier::backends {

namespace {

thread_local bool double_backward = false;

kernels::norm_kernels::Sample sample_of(const Tensor& x, std::int64_t groups, double eps,
                                        bool silu) {
    return {x.size(2) * x.size(3), x.size(1), groups, static_cast<float>(eps), silu};
}

struct Normalised {
    Tensor y, mean, rstd;
};

/// `weight`, `bias` [N,C], or [1,C] for all samples, float32; `x` channels last.
template <class T>
Normalised forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const kernels::norm_kernels::Sample& s) {
    const std::int64_t n = x.size(0), each = s.positions * s.channels,
                       row = weight.size(0) == 1 ? 0 : s.channels;
    Normalised out{at::empty_like(x), at::empty({n, s.groups}, weight.options()),
                   at::empty({n, s.groups}, weight.options())};
    const auto& loops = loops_of<T>(kernels::norm_kernels::best());
    kernels::norm_kernels::for_each_sample(
        n, at::get_num_threads(), parallel_for, [&](std::int64_t i, const auto& for_each) {
            float* work = kernels::thread_workspace(kernels::norm_kernels::forward_workspace(s));
            kernels::norm_kernels::forward(
                loops, s, data_of<T>(x) + i * each, data_of<float>(weight) + i * row,
                data_of<float>(bias) + i * row, writable_data_of<T>(out.y) + i * each,
                writable_data_of<float>(out.mean) + i * s.groups,
                writable_data_of<float>(out.rstd) + i * s.groups, work, for_each);
        });
    return out;
}

struct Gradients {
    Tensor x, weight, bias;
};

template <class T>
Gradients backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const Tensor& mean, const Tensor& rstd, const kernels::norm_kernels::Sample& s) {
    const std::int64_t n = x.size(0), each = s.positions * s.channels,
                       row = weight.size(0) == 1 ? 0 : s.channels;
    Gradients out{at::empty_like(x), at::empty({n, s.channels}, weight.options()),
                  at::empty({n, s.channels}, weight.options())};
    const auto& loops = loops_of<T>(kernels::norm_kernels::best());
    parallel_for(n, [&](std::int64_t i) {
        float* work =
            kernels::thread_workspace(static_cast<std::size_t>((4 + s.positions) * s.channels));
        loops.backward(s, data_of<T>(x) + i * each, data_of<T>(dy) + i * each,
                       data_of<float>(weight) + i * row, data_of<float>(bias) + i * row,
                       data_of<float>(mean) + i * s.groups, data_of<float>(rstd) + i * s.groups,
                       writable_data_of<T>(out.x) + i * each,
                       writable_data_of<float>(out.weight) + i * s.channels,
                       writable_data_of<float>(out.bias) + i * s.channels, work);
    });
    return out;
}

/// With a weight and a bias per sample and channel: norm*weight+bias, then *(1+scale)+shift, is one
/// affine map.
struct Affine : torch::autograd::Function<Affine> {
    static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                          const Tensor& weight, const Tensor& bias, std::int64_t groups, double eps,
                          bool silu) {
        const Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
        const Tensor a = weight.contiguous(), b = bias.contiguous();
        const auto s = sample_of(last, groups, eps, silu);
        const Normalised out =
            last.scalar_type() == at::kFloat
                ? backends::forward<float>(last, a, b, s)
                : backends::forward<kernels::norm_kernels::Bfloat16>(last, a, b, s);
        context->save_for_backward({last, a, b, out.mean, out.rstd});
        context->saved_data["groups"] = groups;
        context->saved_data["eps"] = eps;
        context->saved_data["silu"] = silu;
        return out.y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list gradients) {
        DoubleBackwardGuard::reject_double_backward("the fused normalisation");
        const auto saved = context->get_saved_variables();
        const Tensor& x = saved[0];
        const Tensor& weight = saved[1];
        const auto s =
            sample_of(x, context->saved_data["groups"].toInt(),
                      context->saved_data["eps"].toDouble(), context->saved_data["silu"].toBool());
        const Tensor dy =
            gradients[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
        Gradients out =
            x.scalar_type() == at::kFloat
                ? backends::backward<float>(dy, x, weight, saved[2], saved[3], saved[4], s)
                : backends::backward<kernels::norm_kernels::Bfloat16>(dy, x, weight, saved[2],
                                                                      saved[3], saved[4], s);
        if (weight.size(0) == 1) {
            out.weight = out.weight.sum(0, true);
            out.bias = out.bias.sum(0, true);
        }
        return {out.x, out.weight, out.bias, Tensor(), Tensor(), Tensor()};
    }
};

bool can_fuse(const Tensor& x) {
    const bool type = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
    return !double_backward && x.device().is_cpu() && type && x.dim() == 4 && x.numel() > 0;
}

/// In a narrow type on an accelerator, all of it is in that type, as in EDM's reference
/// implementation; its kernels sum in float32. Autocast would convert to float32 and back.
Tensor unfused_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& modulation, std::int64_t groups, double eps, bool silu) {
    const at::ScalarType type = x.scalar_type();
    const bool narrow =
        !double_backward && !x.is_cpu() && type != at::kFloat && in_low_precision(x.device());
    std::optional<WithoutAutocast> in_its_type;
    if (narrow) in_its_type.emplace(x.device());
    Tensor y = narrow ? at::group_norm(x, groups, weight.to(type), bias.to(type), eps)
                      : at::group_norm(x, groups, weight, bias, eps);
    if (modulation.defined()) {
        const auto halves =
            (narrow ? modulation.to(type) : modulation).unsqueeze(2).unsqueeze(3).chunk(2, 1);
        y = at::addcmul(halves[1], y, halves[0] + 1);
    }
    return silu ? at::silu(y) : y;
}

}  // namespace

Tensor fused_group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Tensor& modulation, std::int64_t groups, double eps, bool silu) {
    if (!double_backward && !x.is_cpu() && can_gpu_group_norm(x, weight, bias, groups)) {
        if (const kernels::gpu::Launcher* launcher = gpu_kernels(x.device()))
            return gpu_group_norm(*launcher, x, weight, bias, modulation, groups, eps, silu);
    }
    if (!can_fuse(x) || weight.scalar_type() != at::kFloat)
        return unfused_norm(x, weight, bias, modulation, groups, eps, silu);
    if (!modulation.defined())
        return Affine::apply(x, weight.unsqueeze(0), bias.unsqueeze(0), groups, eps, silu);
    const auto halves = modulation.to(at::kFloat).chunk(2, 1);
    const Tensor factor = halves[0] + 1;
    return Affine::apply(x, factor * weight, at::addcmul(halves[1], factor, bias), groups, eps,
                         silu);
}

bool normalises_channels_last(const Tensor& x) {
    if (x.device().is_cpu()) return true;
    if (double_backward || !gpu_kernels(x.device())) return false;
    const at::DeviceType device = x.device().type();
    const at::ScalarType type = at::autocast::is_autocast_enabled(device)
                                    ? at::autocast::get_autocast_dtype(device)
                                    : x.scalar_type();
    return type == at::kFloat || type == at::kBFloat16;
}

DoubleBackwardGuard::DoubleBackwardGuard(bool active) : before_(double_backward) {
    double_backward = double_backward || active;
}

DoubleBackwardGuard::~DoubleBackwardGuard() { double_backward = before_; }

bool DoubleBackwardGuard::alive() { return double_backward; }

void DoubleBackwardGuard::reject_double_backward(const char* operation) {
    if (at::GradMode::is_enabled())
        core::fail(
            "{} does not support double backward; keep an backends::DoubleBackwardGuard alive "
            "while "
            "computing it",
            operation);
}

}  // namespace atelier::backends
