#include "atelier/backends/torch/gpu_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/kernels/gpu/group_norm.h"

namespace atelier::backends {

namespace {

namespace gpu = kernels::gpu;

gpu::ElementType element_type_of(const Tensor& x) {
    return x.scalar_type() == at::kFloat ? gpu::ElementType::float32 : gpu::ElementType::bfloat16;
}

gpu::GroupNormSizes gpu_sizes_of(const Tensor& x, std::int64_t groups) {
    return {x.size(0), x.size(2) * x.size(3), x.size(1), groups};
}

/// The arguments that forward and backward share. `modulation` [N,2C] may be undefined.
gpu::GroupNormArguments gpu_arguments_of(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                         const Tensor& modulation, std::int64_t groups, double eps,
                                         bool silu) {
    gpu::GroupNormArguments a =
        gpu::group_norm_arguments(gpu_sizes_of(x, groups), static_cast<float>(eps), silu);
    a.x = x.const_data_ptr();
    a.weight = weight.const_data_ptr<float>();
    a.bias = bias.const_data_ptr<float>();
    if (modulation.defined()) {
        a.modulation = modulation.const_data_ptr();
        a.modulation_type = modulation.scalar_type() == at::kFloat ? gpu::ModulationType::float32
                                                                   : gpu::ModulationType::bfloat16;
    }
    return a;
}

struct GpuNorm : torch::autograd::Function<GpuNorm> {
    static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                          const Tensor& weight, const Tensor& bias,
                          const std::optional<Tensor>& modulation, std::int64_t groups, double eps,
                          bool silu, std::int64_t launcher) {
        const Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast), w = weight.contiguous(),
                     b = bias.contiguous();
        const Tensor m = modulation ? modulation->contiguous() : Tensor();
        gpu::GroupNormArguments a = gpu_arguments_of(last, w, b, m, groups, eps, silu);
        const Tensor y = at::empty_like(last), mean = at::empty({x.size(0), groups}, w.options()),
                     rstd = at::empty_like(mean),
                     partial = at::empty({gpu::group_norm_partial_size(a)}, w.options());
        a.y = y.mutable_data_ptr();
        a.mean = mean.mutable_data_ptr<float>();
        a.rstd = rstd.mutable_data_ptr<float>();
        a.partial = partial.mutable_data_ptr<float>();
        gpu::group_norm_forward(launcher_of(launcher), element_type_of(last), a);
        context->save_for_backward({last, w, b, m, mean, rstd});
        context->saved_data["groups"] = groups;
        context->saved_data["eps"] = eps;
        context->saved_data["silu"] = silu;
        context->saved_data["launcher"] = launcher;
        return y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list gradients) {
        DoubleBackwardGuard::reject_double_backward("the normalisation on GPUs");
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &weight = saved[1], &modulation = saved[3];
        const Tensor dy =
            gradients[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
        gpu::GroupNormArguments a = gpu_arguments_of(
            x, weight, saved[2], modulation, context->saved_data["groups"].toInt(),
            context->saved_data["eps"].toDouble(), context->saved_data["silu"].toBool());
        const Tensor dx = at::empty_like(x), mean = saved[4],
                     totals = at::empty({2, x.size(0), x.size(1)}, mean.options()),
                     terms = at::empty({2, mean.numel()}, mean.options()),
                     partial = at::empty({gpu::group_norm_partial_size(a)}, mean.options());
        Tensor dmodulation, dweight, dbias;
        a.dy = dy.const_data_ptr();
        a.y = dx.mutable_data_ptr();
        // Backward reads mean and rstd through pointers that forward writes through.
        a.mean = const_cast<float*>(mean.const_data_ptr<float>());
        a.rstd = const_cast<float*>(saved[5].const_data_ptr<float>());
        a.partial = partial.mutable_data_ptr<float>();
        a.totals = totals.mutable_data_ptr<float>();
        a.terms = terms.mutable_data_ptr<float>();
        if (modulation.defined()) {
            dmodulation = at::empty_like(modulation);
            a.dmodulation = dmodulation.mutable_data_ptr();
        }
        if (context->needs_input_grad(1) || context->needs_input_grad(2)) {
            dweight = at::empty_like(weight);
            dbias = at::empty_like(weight);
            a.dweight = dweight.mutable_data_ptr<float>();
            a.dbias = dbias.mutable_data_ptr<float>();
        }
        gpu::group_norm_backward(launcher_of(context->saved_data["launcher"].toInt()),
                                 element_type_of(x), a);
        return {dx, dweight, dbias, dmodulation, Tensor(), Tensor(), Tensor(), Tensor()};
    }

    static const gpu::Launcher& launcher_of(std::int64_t address) {
        return *reinterpret_cast<const gpu::Launcher*>(address);
    }
};

}  // namespace

bool can_gpu_group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        std::int64_t groups) {
    const bool type = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
    return type && x.dim() == 4 && weight.scalar_type() == at::kFloat &&
           bias.scalar_type() == at::kFloat && gpu::can_group_norm(gpu_sizes_of(x, groups));
}

Tensor gpu_group_norm(const gpu::Launcher& launcher, const Tensor& x, const Tensor& weight,
                      const Tensor& bias, const Tensor& modulation, std::int64_t groups, double eps,
                      bool silu) {
    std::optional<Tensor> m;
    if (modulation.defined())
        m = modulation.scalar_type() == at::kBFloat16 ? modulation : modulation.to(at::kFloat);
    return GpuNorm::apply(x, weight, bias, m, groups, eps, silu,
                          reinterpret_cast<std::int64_t>(&launcher));
}

}  // namespace atelier::backends
