#include "atelier/ops/fused_norm.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "atelier/core/error.h"
#include "atelier/ops/norm_forward.h"
#include "atelier/ops/parallel.h"
#include "atelier/ops/tensor_data.h"
#include "atelier/ops/thread_room.h"

namespace atelier::ops {

namespace {

thread_local bool from_parts = false;

norm_kernels::Sample sample_of(const Tensor& x, std::int64_t groups, double eps, bool silu) {
    return {x.size(2) * x.size(3), x.size(1), groups, static_cast<float>(eps), silu};
}

struct Normalised {
    Tensor y, mean, inverse_deviation;
};

/// `gain`, `offset` [N,C] or [1,C] for all samples, float32; `x` channels last.
template <class T>
Normalised forward(const Tensor& x, const Tensor& gain, const Tensor& offset, const norm_kernels::Sample& s) {
    const std::int64_t n = x.size(0), each = s.positions * s.channels, row = gain.size(0) == 1 ? 0 : s.channels;
    Normalised out{at::empty_like(x), at::empty({n, s.groups}, gain.options()), at::empty({n, s.groups}, gain.options())};
    const auto& loops = loops_of<T>(norm_kernels::best());
    norm_kernels::each_sample(n, at::get_num_threads(), in_parallel, [&](std::int64_t i, const auto& for_each) {
        float* work = thread_room(norm_kernels::forward_room(s));
        norm_kernels::forward(loops, s, data_of<T>(x) + i * each, data_of<float>(gain) + i * row, data_of<float>(offset) + i * row,
                              writable_data_of<T>(out.y) + i * each, writable_data_of<float>(out.mean) + i * s.groups,
                              writable_data_of<float>(out.inverse_deviation) + i * s.groups, work, for_each);
    });
    return out;
}

struct Slopes {
    Tensor x, gain, offset;
};

template <class T>
Slopes backward(const Tensor& dy, const Tensor& x, const Tensor& gain, const Tensor& offset, const Tensor& mean,
                const Tensor& inverse_deviation, const norm_kernels::Sample& s) {
    const std::int64_t n = x.size(0), each = s.positions * s.channels, row = gain.size(0) == 1 ? 0 : s.channels;
    Slopes out{at::empty_like(x), at::empty({n, s.channels}, gain.options()), at::empty({n, s.channels}, gain.options())};
    const auto& loops = loops_of<T>(norm_kernels::best());
    in_parallel(n, [&](std::int64_t i) {
        float* work = thread_room(static_cast<std::size_t>((4 + s.positions) * s.channels));
        loops.backward(s, data_of<T>(x) + i * each, data_of<T>(dy) + i * each, data_of<float>(gain) + i * row,
                            data_of<float>(offset) + i * row, data_of<float>(mean) + i * s.groups,
                            data_of<float>(inverse_deviation) + i * s.groups, writable_data_of<T>(out.x) + i * each,
                            writable_data_of<float>(out.gain) + i * s.channels, writable_data_of<float>(out.offset) + i * s.channels, work);
    });
    return out;
}

/// Gain and offset a sample and channel: norm*weight+bias, then *(1+scale)+shift, is one affine map.
struct Affine : torch::autograd::Function<Affine> {
    static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& gain, const Tensor& offset,
                          std::int64_t groups, double eps, bool silu) {
        const Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
        const Tensor a = gain.contiguous(), b = offset.contiguous();
        const auto s = sample_of(last, groups, eps, silu);
        const Normalised out = last.scalar_type() == at::kFloat ? ops::forward<float>(last, a, b, s)
                                                               : ops::forward<norm_kernels::Bfloat16>(last, a, b, s);
        context->save_for_backward({last, a, b, out.mean, out.inverse_deviation});
        context->saved_data["groups"] = groups;
        context->saved_data["eps"] = eps;
        context->saved_data["silu"] = silu;
        return out.y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list slopes) {
        NormFromParts::refuse_second_slope("the fused normalisation");
        const auto saved = context->get_saved_variables();
        const Tensor& x = saved[0];
        const Tensor& gain = saved[1];
        const auto s = sample_of(x, context->saved_data["groups"].toInt(), context->saved_data["eps"].toDouble(),
                                 context->saved_data["silu"].toBool());
        const Tensor dy = slopes[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
        Slopes out = x.scalar_type() == at::kFloat
                         ? ops::backward<float>(dy, x, gain, saved[2], saved[3], saved[4], s)
                         : ops::backward<norm_kernels::Bfloat16>(dy, x, gain, saved[2], saved[3], saved[4], s);
        if (gain.size(0) == 1) {
            out.gain = out.gain.sum(0, true);
            out.offset = out.offset.sum(0, true);
        }
        return {out.x, out.gain, out.offset, Tensor(), Tensor(), Tensor()};
    }
};

bool can_fuse(const Tensor& x) {
    const bool type = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
    return !from_parts && x.device().is_cpu() && type && x.dim() == 4 && x.numel() > 0;
}

Tensor norm_from_parts(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& modulation, std::int64_t groups,
                       double eps, bool silu) {
    Tensor y = at::group_norm(x, groups, weight, bias, eps);
    if (modulation.defined()) {
        const auto halves = modulation.unsqueeze(2).unsqueeze(3).chunk(2, 1);
        y = at::addcmul(halves[1], y, halves[0] + 1);
    }
    return silu ? at::silu(y) : y;
}

}  // namespace

Tensor fused_group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& modulation, std::int64_t groups,
                        double eps, bool silu) {
    if (!can_fuse(x) || weight.scalar_type() != at::kFloat) return norm_from_parts(x, weight, bias, modulation, groups, eps, silu);
    if (!modulation.defined()) return Affine::apply(x, weight.unsqueeze(0), bias.unsqueeze(0), groups, eps, silu);
    const auto halves = modulation.to(at::kFloat).chunk(2, 1);
    const Tensor factor = halves[0] + 1;
    return Affine::apply(x, factor * weight, at::addcmul(halves[1], factor, bias), groups, eps, silu);
}

NormFromParts::NormFromParts(bool active) : before_(from_parts) { from_parts = from_parts || active; }

NormFromParts::~NormFromParts() { from_parts = before_; }

bool NormFromParts::alive() { return from_parts; }

void NormFromParts::refuse_second_slope(const char* whose) {
    if (at::GradMode::is_enabled()) core::fail("{}'s slope has none itself; keep ops::NormFromParts alive while it is computed", whose);
}

}  // namespace atelier::ops
