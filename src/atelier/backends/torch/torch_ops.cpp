#include "atelier/backends/torch/torch_ops.h"

#include <cmath>
#include <numbers>

#include "atelier/backends/torch/fused_attention.h"
#include "atelier/backends/torch/fused_norm.h"
#include "atelier/backends/torch/low_rank.h"
#include "atelier/backends/torch/recomputed.h"
#include "atelier/backends/torch/transfer.h"
#include "atelier/backends/torch/winograd.h"

namespace atelier::backends {

namespace {

/// A filter [4,4] that sums to `gain`, float64.
Tensor smoothing_taps(double gain) {
    const Tensor taps = at::tensor({1.0, 3.0, 3.0, 1.0}, at::kDouble) / 8;
    return at::outer(taps, taps) * gain;
}

/// The filter [C,1,4,4] of every channel of `like`.
Tensor depthwise(const DeviceConstant& taps, const Tensor& like) {
    return taps.on(like.device(), like.scalar_type()).expand({like.size(1), 1, 4, 4});
}

Tensor smooth_down(const Tensor& x, std::int64_t padding) {
    static const DeviceConstant taps(smoothing_taps(1));
    return at::conv2d(x, depthwise(taps, x), {}, 2, padding, 1, x.size(1));
}

Tensor smooth_up(const Tensor& x) {
    static const DeviceConstant taps(smoothing_taps(4));
    return at::conv_transpose2d(x, depthwise(taps, x), {}, 2, 1, 0, x.size(1));
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
    return read(prefix_ + name, parameters_.at(prefix_ + name));
}

const Tensor& TorchOps::narrow_parameter(const std::string& name) const {
    const Tensor& own = parameters_.at(prefix_ + name);
    if (own.is_cpu() || !in_low_precision(own.device())) return read(prefix_ + name, own);
    return read(prefix_ + name, parameters_.narrow(prefix_ + name));
}

const Tensor& TorchOps::read(const std::string& name, const Tensor& tensor) const {
    if (parameters_read_) parameters_read_->insert_or_assign(name, tensor);
    return tensor;
}

std::vector<Tensor> TorchOps::run(const graph::Graph& graph, std::span<const Tensor> inputs) const {
    return graph::execute(graph, *this, inputs);
}

std::vector<Tensor> TorchOps::run(graph::GraphCache& cache, const graph::Function& function,
                                  std::span<const Tensor> inputs) const {
    std::vector<graph::Shape> shapes;
    for (const Tensor& input : inputs) shapes.push_back(input.sizes().vec());
    return run(*cache.graph(std::move(shapes), function), inputs);
}

Tensor TorchOps::lower(const graph::Conv2d& layer, const In& in) const {
    return hook_ ? hook_(layer, in[0]) : convolved(layer, in[0]);
}

Tensor TorchOps::convolved(const graph::Conv2d& layer, const Tensor& x) const {
    // Channels innermost: the convolutions need no reordering, and the fused normalisation reads
    // their results directly.
    const Tensor images = normalises_channels_last(x) ? channels_last(x) : x;
    const std::string& name = layer.name;
    const Tensor& weight = narrow_parameter(name + ".weight");
    const Tensor bias = layer.bias ? narrow_parameter(name + ".bias") : Tensor();
    const Tensor out =
        layer.bias && winograd_pays(images, weight, layer)
            ? winograd_conv2d(images, weight, bias)
            : at::conv2d(images, weight, layer.bias ? std::optional(bias) : std::nullopt,
                         layer.stride, layer.padding);
    if (!is_low_rank(parameters_, prefix_ + name)) return out;
    return out + at::conv2d(at::conv2d(images, narrow_parameter(name + ".lora_down.weight"), {},
                                       layer.stride, layer.padding),
                            narrow_parameter(name + ".lora_up.weight"));
}

Tensor TorchOps::lower(const graph::Linear& layer, const In& call) const {
    const std::string& name = layer.name;
    Tensor in = call[0];
    // One row of features per sample gains nothing from a narrower type: reading the weights costs
    // more than multiplying by them, and so does rounding them.
    const bool wide = in.dim() == 2 && in_low_precision(in.device());
    const auto parameter_of = [&](const char* part) {
        return wide ? parameter(name + part) : narrow_parameter(name + part);
    };
    Tensor weight = parameter_of(".weight"), bias = layer.bias ? parameter_of(".bias") : Tensor();
    std::optional<WithoutAutocast> in_float32;
    if (wide) {
        in = in.to(at::kFloat);
        weight = weight.to(at::kFloat);  // frozen weights may have a narrower type
        if (layer.bias) bias = bias.to(at::kFloat);
        in_float32.emplace(in.device());
    }
    const Tensor out = at::linear(in, weight, layer.bias ? std::optional(bias) : std::nullopt);
    if (!is_low_rank(parameters_, prefix_ + name)) return out;
    return out + at::linear(at::linear(in, parameter_of(".lora_down.weight")),
                            parameter_of(".lora_up.weight"));
}

Tensor TorchOps::lower(const graph::GroupNorm& layer, const In& in) const {
    return fused_group_norm(in[0], narrow_parameter(layer.name + ".weight"),
                            narrow_parameter(layer.name + ".bias"),
                            in.count() > 1 ? in[1] : Tensor(), layer.groups, layer.eps, layer.silu);
}

Tensor TorchOps::lower(const graph::LayerNorm& layer, const In& in) const {
    if (!layer.affine)
        return at::layer_norm(in[0], in[0].sizes().slice(in[0].dim() - 1), {}, {}, layer.eps);
    const Tensor& weight = parameter(layer.name + ".weight");
    return at::layer_norm(in[0], weight.sizes(), weight, parameter(layer.name + ".bias"),
                          layer.eps);
}

Tensor TorchOps::lower(const graph::Attention& layer, const In& in) const {
    const Tensor& x = in[0];
    const bool twice = DoubleBackwardGuard::alive();
    if (!twice && can_fuse_attention(x)) return fused_attention(x, layer.heads);
    const auto n = x.size(0), channels = x.size(1) / 3, height = x.size(2), width = x.size(3);
    const Tensor split = x.reshape({n, layer.heads, channels / layer.heads, 3, height * width});
    // [3,N,heads,positions,features]. Contiguous q, k and v go through LibTorch's fused attention,
    // which retains no scores. It does not support double backward.
    const Tensor strided = split.permute({3, 0, 1, 4, 2});
    const std::vector<Tensor> parts = (twice ? strided : strided.contiguous()).unbind();
    const Tensor attended = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
    return attended.transpose(-1, -2).reshape({n, channels, height, width});
}

Tensor TorchOps::lower(const graph::Resampling& layer, const In& in) const {
    const Tensor& x = in[0];
    switch (layer.mode) {
        case graph::Resample::up:
            return at::upsample_nearest2d(x, std::nullopt, at::ArrayRef<double>{2.0, 2.0});
        case graph::Resample::down:
            return at::avg_pool2d(x, {2, 2});
        case graph::Resample::smooth_up:
            return smooth_up(x);
        case graph::Resample::smooth_down:
            return smooth_down(x, 1);
        case graph::Resample::smooth_down_valid:
            return smooth_down(x, 0);
        case graph::Resample::none:
            break;
    }
    return x;
}

Tensor TorchOps::lower(const graph::Concat&, const In& in) const {
    return at::cat({in[0], in[1]}, 1);
}

Tensor TorchOps::lower(const graph::Slice& layer, const In& in) const {
    return in[0].narrow(1, layer.first, layer.count);
}

Tensor TorchOps::lower(const graph::Add&, const In& in) const {
    const Tensor &x = in[0], &y = in[1];
    if (x.dim() == y.dim()) return x + y;
    return x + (x.dim() == 3 ? y.unsqueeze(1) : y.unsqueeze(-1).unsqueeze(-1));
}

Tensor TorchOps::lower(const graph::Multiply&, const In& in) const {
    return in[0] * (in[0].dim() == in[1].dim() ? in[1] : in[1].unsqueeze(1));
}

Tensor TorchOps::lower(const graph::Scale& layer, const In& in) const {
    const Tensor scaled = in[0] * layer.factor;
    return layer.shift == 0 ? scaled : scaled + layer.shift;
}

Tensor TorchOps::lower(const graph::Silu&, const In& in) const { return at::silu(in[0]); }

Tensor TorchOps::lower(const graph::Relu&, const In& in) const { return at::relu(in[0]); }

Tensor TorchOps::lower(const graph::Tanh&, const In& in) const { return at::tanh(in[0]); }

Tensor TorchOps::lower(const graph::Sinusoid& layer, const In& in) const {
    const Tensor& values = in[0];
    const std::int64_t half = layer.width / 2;
    const Tensor exponent =
        at::arange(half, values.options()) / static_cast<double>(layer.endpoint ? half - 1 : half);
    const Tensor waves =
        sinusoids(at::outer(values.flatten(), at::pow(1.0 / 10000, exponent)), layer.sines_first);
    return values.dim() == 1 ? waves : waves.view({values.size(0), -1});
}

Tensor TorchOps::lower(const graph::Fourier& layer, const In& in) const {
    return sinusoids(at::outer(in[0], parameter(layer.name).detach() * (2 * std::numbers::pi)),
                     true);
}

Tensor TorchOps::lower(const graph::PixelUnshuffle& layer, const In& in) const {
    return at::pixel_unshuffle(in[0], layer.factor);
}

Tensor TorchOps::lower(const graph::PixelShuffle& layer, const In& in) const {
    if (!layer.blocks_first) return at::pixel_shuffle(in[0], layer.factor);
    const Tensor& x = in[0];
    const std::int64_t n = x.size(0), h = x.size(2), w = x.size(3), f = layer.factor,
                       channels = x.size(1) / (f * f);
    return x.reshape({n, f, f, channels, h, w})
        .permute({0, 3, 4, 1, 5, 2})
        .reshape({n, channels, h * f, w * f});
}

Tensor TorchOps::lower(const graph::GlobalAverage&, const In& in) const {
    return in[0].mean({2, 3});
}

Tensor TorchOps::lower(const graph::Block& block, const In& in) const {
    // Recomputed blocks do not support double backward.
    if (!recompute_ || hook_ || !at::GradMode::is_enabled() || DoubleBackwardGuard::alive())
        return run(*block.body, in.in)[0];
    return recomputed(block, in.in, parameters_, prefix_);
}

bool in_low_precision(at::Device device) {
    return at::autocast::is_autocast_enabled(device.type());
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
