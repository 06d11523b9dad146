#include "atelier/backends/torch/torch_ops.h"

#include <cmath>
#include <numbers>

#include "atelier/backends/torch/fused_attention.h"
#include "atelier/backends/torch/fused_norm.h"
#include "atelier/backends/torch/low_rank.h"
#include "atelier/backends/torch/recomputed.h"
#include "atelier/backends/torch/winograd.h"

namespace atelier::backends {

namespace {

/// A depthwise filter [C,1,4,4] per channel that sums to `gain`.
Tensor smoothing(const Tensor& like, double gain) {
    const Tensor taps = at::tensor({1.0, 3.0, 3.0, 1.0}, at::kDouble) / 8;
    return (at::outer(taps, taps) * gain).to(like.options()).expand({like.size(1), 1, 4, 4});
}

Tensor smooth_down(const Tensor& x, std::int64_t padding) {
    return at::conv2d(x, smoothing(x, 1), {}, 2, padding, 1, x.size(1));
}

Tensor sinusoids(const Tensor& angles, bool sines_first) {
    return sines_first ? at::cat({angles.sin(), angles.cos()}, 1)
                       : at::cat({angles.cos(), angles.sin()}, 1);
}

/// Channels last. For a single channel both layouts are the same in memory, but LibTorch only
/// recognises it, and returns results in that layout, when the strides say so.
Tensor channels_last(const Tensor& images) {
    if (images.dim() != 4 || images.size(1) != 1)
        return images.contiguous(at::MemoryFormat::ChannelsLast);
    return images.contiguous()
        .view({images.size(0), images.size(2), images.size(3), 1})
        .permute({0, 3, 1, 2});
}

}  // namespace

TorchOps::TorchOps(const Parameters& parameters, std::string prefix, bool recompute)
    : parameters_(parameters), prefix_(std::move(prefix)), recompute_(recompute) {}

const Tensor& TorchOps::parameter(const std::string& name) const {
    if (parameters_read_) parameters_read_->insert(prefix_ + name);
    return parameters_.at(prefix_ + name);
}

graph::Shape TorchOps::shape(const graph::Value& x) const { return tensor_of(x).sizes().vec(); }

graph::Value TorchOps::conv2d(const graph::Value& x, const std::string& name,
                              const graph::Convolution& layer) {
    // Channels innermost on CPUs: the convolutions need no reordering, and the fused normalisation
    // reads their results directly.
    const Tensor in = tensor_of(x);
    const Tensor images = in.device().is_cpu() ? channels_last(in) : in;
    const Tensor &weight = parameter(name + ".weight"), &bias = parameter(name + ".bias");
    const Tensor out = winograd_pays(images, weight, layer)
                           ? winograd_conv2d(images, weight, bias)
                           : at::conv2d(images, weight, bias, layer.stride, layer.padding);
    if (!is_low_rank(parameters_, prefix_ + name)) return out;
    return out + at::conv2d(at::conv2d(images, parameter(name + ".lora_down.weight"), {},
                                       layer.stride, layer.padding),
                            parameter(name + ".lora_up.weight"));
}

graph::Value TorchOps::linear(const graph::Value& x, const std::string& name,
                              const graph::Linear& layer) {
    Tensor in = tensor_of(x), weight = parameter(name + ".weight"),
           bias = layer.bias ? parameter(name + ".bias") : Tensor();
    // One row of features per sample gains nothing from bfloat16 on a CPU: reading the weights
    // costs more than multiplying by them, and so does rounding them.
    std::optional<c10::impl::ExcludeDispatchKeyGuard> in_float32;
    if (in.dim() == 2 && in.device().is_cpu() && at::autocast::is_autocast_enabled(at::kCPU)) {
        in = in.to(at::kFloat);
        weight = weight.to(at::kFloat);  // frozen weights may have a narrower type
        if (layer.bias) bias = bias.to(at::kFloat);
        in_float32.emplace(at::autocast::get_autocast_dispatch_key_from_device_type(at::kCPU));
    }
    const Tensor out = at::linear(in, weight, layer.bias ? std::optional(bias) : std::nullopt);
    if (!is_low_rank(parameters_, prefix_ + name)) return out;
    return out + at::linear(at::linear(in, parameter(name + ".lora_down.weight")),
                            parameter(name + ".lora_up.weight"));
}

graph::Value TorchOps::group_norm(const graph::Value& x, const std::string& name,
                                  const graph::GroupNorm& layer) {
    const Tensor modulation = layer.modulation ? tensor_of(*layer.modulation) : Tensor();
    return fused_group_norm(tensor_of(x), parameter(name + ".weight"), parameter(name + ".bias"),
                            modulation, layer.groups, layer.eps, layer.silu);
}

graph::Value TorchOps::layer_norm(const graph::Value& x, const std::string& name, double eps) {
    const Tensor& weight = parameter(name + ".weight");
    return at::layer_norm(tensor_of(x), weight.sizes(), weight, parameter(name + ".bias"), eps);
}

graph::Value TorchOps::attention(const graph::Value& qkv, std::int64_t heads) {
    const Tensor x = tensor_of(qkv);
    const bool twice = DoubleBackwardGuard::alive();
    if (!twice && can_fuse_attention(x)) return fused_attention(x, heads);
    const auto n = x.size(0), channels = x.size(1) / 3, height = x.size(2), width = x.size(3);
    const Tensor split = x.reshape({n, heads, channels / heads, 3, height * width});
    // Contiguous q, k and v go through LibTorch's fused attention, which retains no scores. It does
    // not support double backward.
    const auto part = [&](int i) {
        const Tensor strided = split.select(3, i).transpose(-1, -2);
        return twice ? strided : strided.contiguous();
    };
    const Tensor attended = at::scaled_dot_product_attention(part(0), part(1), part(2));
    return attended.transpose(-1, -2).reshape({n, channels, height, width});
}

graph::Value TorchOps::resample(const graph::Value& x, graph::Resample mode) {
    switch (mode) {
        case graph::Resample::up:
            return at::upsample_nearest2d(tensor_of(x), std::nullopt,
                                          at::ArrayRef<double>{2.0, 2.0});
        case graph::Resample::down:
            return at::avg_pool2d(tensor_of(x), {2, 2});
        case graph::Resample::smooth_up: {
            const Tensor in = tensor_of(x);
            return at::conv_transpose2d(in, smoothing(in, 4), {}, 2, 1, 0, in.size(1));
        }
        case graph::Resample::smooth_down:
            return smooth_down(tensor_of(x), 1);
        case graph::Resample::smooth_down_valid:
            return smooth_down(tensor_of(x), 0);
        case graph::Resample::none:
            break;
    }
    return x;
}

graph::Value TorchOps::concat(const graph::Value& a, const graph::Value& b) {
    return at::cat({tensor_of(a), tensor_of(b)}, 1);
}

graph::Value TorchOps::add(const graph::Value& a, const graph::Value& b) {
    const Tensor x = tensor_of(a), y = tensor_of(b);
    return x + (x.dim() == y.dim() ? y : y.unsqueeze(-1).unsqueeze(-1));
}

graph::Value TorchOps::scale(const graph::Value& x, double factor) { return tensor_of(x) * factor; }

graph::Value TorchOps::silu(const graph::Value& x) { return at::silu(tensor_of(x)); }

graph::Value TorchOps::sinusoid(const graph::Value& x, const graph::Sinusoid& layer) {
    const Tensor values = tensor_of(x);
    const std::int64_t half = layer.width / 2;
    const Tensor exponent =
        at::arange(half, values.options()) / static_cast<double>(layer.endpoint ? half - 1 : half);
    return sinusoids(at::outer(values, at::pow(1.0 / 10000, exponent)), layer.sines_first);
}

graph::Value TorchOps::fourier(const graph::Value& x, const std::string& name, std::int64_t) {
    return sinusoids(at::outer(tensor_of(x), parameter(name).detach() * (2 * std::numbers::pi)),
                     true);
}

graph::Value TorchOps::pixel_unshuffle(const graph::Value& x, std::int64_t factor) {
    return at::pixel_unshuffle(tensor_of(x), factor);
}

graph::Value TorchOps::pixel_shuffle(const graph::Value& x, std::int64_t factor) {
    return at::pixel_shuffle(tensor_of(x), factor);
}

graph::Value TorchOps::global_average(const graph::Value& x) { return tensor_of(x).mean({2, 3}); }

graph::Value TorchOps::block(std::span<const graph::Value> inputs, const Body& body) {
    // Recomputed blocks do not support double backward.
    if (!recompute_ || !at::GradMode::is_enabled() || DoubleBackwardGuard::alive())
        return body(*this, inputs);
    return recomputed(inputs, body, parameters_, prefix_);
}

LowPrecision::LowPrecision(at::DeviceType device, std::optional<at::ScalarType> type)
    : device_(device), active_(type.has_value()) {
    if (!active_) return;
    before_ = at::autocast::is_autocast_enabled(device_);
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, *type);
    at::autocast::increment_nesting();
}

LowPrecision::~LowPrecision() {
    if (!active_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, before_);
}

}  // namespace atelier::backends
