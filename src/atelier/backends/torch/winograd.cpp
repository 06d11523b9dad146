#include "atelier/backends/torch/winograd.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/backends/torch/parallel.h"
#include "atelier/kernels/winograd_forward.h"

namespace atelier::backends {

namespace {

namespace loops = kernels::winograd_kernels;

const loops::Table& winograd_table() {
    static const loops::Table& table = loops::best();
    return table;
}

loops::Images images_of(const Tensor& x, std::int64_t out) {
    return {x.size(0), x.size(2), x.size(3), x.size(1), out};
}

/// Filters [out,in,3,3] as a convolution reads them and, rotated by 180 degrees, as the gradient
/// with respect to its input does.
loops::Filters filters_of(const Tensor& weight, bool rotated) {
    const std::int64_t out = weight.size(0), in = weight.size(1);
    return rotated ? loops::Filters{out, in, 9 * in, 9, true} : loops::Filters{in, out, 9, 9 * in};
}

Tensor transformed(const Tensor& weight, bool rotated) {
    const auto filters = filters_of(weight, rotated);
    Tensor values = at::empty({loops::points * filters.stride()}, weight.options());
    const float* from = weight.const_data_ptr<float>();
    float* to = values.mutable_data_ptr<float>();
    parallel_for(filters.out / loops::panel, [&](std::int64_t i) {
        winograd_table().transform_filters(filters, i * loops::panel, from, to);
    });
    return values;
}

Tensor convolved(const Tensor& x, const Tensor& weight, bool rotated, const Tensor& bias) {
    const auto s = images_of(x, filters_of(weight, rotated).out);
    const Tensor values = transformed(weight, rotated);
    Tensor y = at::empty({s.samples, s.out, s.height, s.width}, x.options(),
                         at::MemoryFormat::ChannelsLast);
    loops::convolve_all(winograd_table(), winograd_table().float32, s, at::get_num_threads(),
                        parallel_for, x.const_data_ptr<float>(), values.const_data_ptr<float>(),
                        bias.const_data_ptr<float>(), y.mutable_data_ptr<float>());
    return y;
}

/// The gradient with respect to the weight [out,in,3,3], accumulated by each thread over its share
/// of the tiles.
Tensor weight_gradient(const Tensor& weight, const Tensor& x, const Tensor& dy) {
    const auto s = images_of(x, dy.size(1));
    const auto filters = filters_of(weight, false);
    const std::int64_t share = (s.tiles() + at::get_num_threads() - 1) / at::get_num_threads(),
                       parts = (s.tiles() + share - 1) / share;
    const std::int64_t step = loops::block_tiles(share, 1);
    Tensor gradients = at::empty({parts, loops::points * filters.stride()}, x.options());
    const float *from = x.const_data_ptr<float>(), *by = dy.const_data_ptr<float>();
    float* sums = gradients.mutable_data_ptr<float>();
    parallel_for(parts, [&](std::int64_t part) {
        float* work = kernels::thread_workspace(loops::block_workspace(s, step));
        const std::int64_t begin = part * share, end = std::min(begin + share, s.tiles());
        for (std::int64_t first = begin; first < end; first += step) {
            loops::weight_gradient(winograd_table(), winograd_table().float32, s,
                                   {first, std::min(step, end - first)}, from, by, first > begin,
                                   sums + part * gradients.size(1), work);
        }
    });
    const Tensor sum = parts == 1 ? gradients : gradients.sum(0);
    Tensor weight_grad = at::empty_like(weight);
    const float* at = sum.const_data_ptr<float>();
    float* to = weight_grad.mutable_data_ptr<float>();
    parallel_for(s.out / loops::panel, [&](std::int64_t i) {
        winograd_table().filter_gradient(filters, i * loops::panel, at, to);
    });
    return weight_grad;
}

struct WinogradConv : torch::autograd::Function<WinogradConv> {
    static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                          const Tensor& weight, const Tensor& bias) {
        const Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
        const Tensor filters = weight.contiguous();
        context->save_for_backward({last, filters});
        return convolved(last, filters, false, bias.contiguous());
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list gradients) {
        DoubleBackwardGuard::reject_double_backward("the Winograd convolution");
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &weight = saved[1],
                     dy = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
        Tensor x_grad, weight_grad, bias_grad;
        if (context->needs_input_grad(
                0)) {  // the convolution of dy with the filters rotated by 180 degrees
            x_grad = convolved(dy, weight, true, at::zeros({x.size(1)}, x.options()));
        }
        if (context->needs_input_grad(1)) weight_grad = weight_gradient(weight, x, dy);
        if (context->needs_input_grad(2)) bias_grad = dy.sum({0, 2, 3});
        return {x_grad, weight_grad, bias_grad};
    }
};

}  // namespace

bool winograd_pays(const Tensor& x, const Tensor& weight, const graph::Conv2d& layer) {
    const bool floats = x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
                        x.device().is_cpu() && weight.device().is_cpu();
    if (!floats || DoubleBackwardGuard::alive() || at::autocast::is_autocast_enabled(at::kCPU) ||
        x.dim() != 4 || x.size(0) == 0)
        return false;
    const bool same_size =
        weight.size(2) == 3 && weight.size(3) == 3 && layer.stride == 1 && layer.padding == 1;
    return same_size &&
           kernels::winograd_kernels::pays(x.size(2), x.size(3), weight.size(1), weight.size(0));
}

Tensor winograd_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias) {
    return WinogradConv::apply(x, weight, bias);
}

}  // namespace atelier::backends
