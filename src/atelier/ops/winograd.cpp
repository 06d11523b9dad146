#include "atelier/ops/winograd.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "atelier/ops/fused_norm.h"
#include "atelier/ops/parallel.h"
#include "atelier/ops/winograd_forward.h"

namespace atelier::ops {

namespace {

namespace kernels = winograd_kernels;

const kernels::Table& winograd_table() {
    static const kernels::Table& table = kernels::best();
    return table;
}

kernels::Images images_of(const Tensor& x, std::int64_t out) { return {x.size(0), x.size(2), x.size(3), x.size(1), out}; }

/// Filters [out,in,3,3] as a convolution reads them and, turned, as its slopes do.
kernels::Filters filters_of(const Tensor& weight, bool turned) {
    const std::int64_t out = weight.size(0), in = weight.size(1);
    return turned ? kernels::Filters{out, in, 9 * in, 9, true} : kernels::Filters{in, out, 9, 9 * in};
}

Tensor at_points(const Tensor& weight, bool turned) {
    const auto filters = filters_of(weight, turned);
    Tensor values = at::empty({kernels::points * filters.stride()}, weight.options());
    const float* from = weight.const_data_ptr<float>();
    float* to = values.mutable_data_ptr<float>();
    in_parallel(filters.out / kernels::panel, [&](std::int64_t i) { winograd_table().read_filters(filters, i * kernels::panel, from, to); });
    return values;
}

Tensor convolved(const Tensor& x, const Tensor& weight, bool turned, const Tensor& bias) {
    const auto s = images_of(x, filters_of(weight, turned).out);
    const Tensor values = at_points(weight, turned);
    Tensor y = at::empty({s.samples, s.out, s.height, s.width}, x.options(), at::MemoryFormat::ChannelsLast);
    kernels::convolve_all(winograd_table(), winograd_table().float32, s, at::get_num_threads(), in_parallel, x.const_data_ptr<float>(),
                          values.const_data_ptr<float>(), bias.const_data_ptr<float>(), y.mutable_data_ptr<float>());
    return y;
}

/// Slopes on the weight [out,in,3,3], summed up by each thread for its share of the tiles.
Tensor slopes_on(const Tensor& weight, const Tensor& x, const Tensor& dy) {
    const auto s = images_of(x, dy.size(1));
    const auto filters = filters_of(weight, false);
    const std::int64_t share = (s.tiles() + at::get_num_threads() - 1) / at::get_num_threads(), parts = (s.tiles() + share - 1) / share;
    const std::int64_t step = kernels::block_tiles(share, 1);
    Tensor slopes = at::empty({parts, kernels::points * filters.stride()}, x.options());
    const float *from = x.const_data_ptr<float>(), *by = dy.const_data_ptr<float>();
    float* sums = slopes.mutable_data_ptr<float>();
    in_parallel(parts, [&](std::int64_t part) {
        float* work = thread_room(kernels::block_room(s, step));
        const std::int64_t begin = part * share, end = std::min(begin + share, s.tiles());
        for (std::int64_t first = begin; first < end; first += step) {
            kernels::filter_slopes(winograd_table(), winograd_table().float32, s, {first, std::min(step, end - first)}, from, by, first > begin,
                                   sums + part * slopes.size(1), work);
        }
    });
    const Tensor sum = parts == 1 ? slopes : slopes.sum(0);
    Tensor on_weight = at::empty_like(weight);
    const float* at = sum.const_data_ptr<float>();
    float* to = on_weight.mutable_data_ptr<float>();
    in_parallel(s.out / kernels::panel, [&](std::int64_t i) { winograd_table().write_filters(filters, i * kernels::panel, at, to); });
    return on_weight;
}

struct WinogradConv : torch::autograd::Function<WinogradConv> {
    static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& bias) {
        const Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
        const Tensor filters = weight.contiguous();
        context->save_for_backward({last, filters});
        return convolved(last, filters, false, bias.contiguous());
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list slopes) {
        NormFromParts::refuse_second_slope("this convolution");
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &weight = saved[1], dy = slopes[0].contiguous(at::MemoryFormat::ChannelsLast);
        Tensor on_x, on_weight, on_bias;
        if (context->needs_input_grad(0)) {  // the convolution of the slopes with the filters turned by half a turn
            on_x = convolved(dy, weight, true, at::zeros({x.size(1)}, x.options()));
        }
        if (context->needs_input_grad(1)) on_weight = slopes_on(weight, x, dy);
        if (context->needs_input_grad(2)) on_bias = dy.sum({0, 2, 3});
        return {on_x, on_weight, on_bias};
    }
};

}  // namespace

bool winograd_pays(const Tensor& x, const Tensor& weight, const Convolution& layer) {
    const bool floats = x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && x.device().is_cpu() && weight.device().is_cpu();
    if (!floats || NormFromParts::alive() || at::autocast::is_autocast_enabled(at::kCPU) || x.dim() != 4 || x.size(0) == 0) return false;
    const bool same_size = weight.size(2) == 3 && weight.size(3) == 3 && layer.stride == 1 && layer.padding == 1;
    return same_size && winograd_kernels::pays(x.size(2), x.size(3), weight.size(1), weight.size(0));
}

Tensor winograd_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias) { return WinogradConv::apply(x, weight, bias); }

}  // namespace atelier::ops
