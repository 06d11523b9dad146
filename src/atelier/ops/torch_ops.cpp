#include "atelier/ops/torch_ops.h"

#include <cmath>

#include "atelier/ops/fused_norm.h"

namespace atelier::ops {

TorchOps::TorchOps(const Parameters& parameters, std::string prefix) : parameters_(parameters), prefix_(std::move(prefix)) {}

const Tensor& TorchOps::parameter(const std::string& name) const { return parameters_.at(prefix_ + name); }

Shape TorchOps::shape(const Value& x) const { return tensor_of(x).sizes().vec(); }

Value TorchOps::conv2d(const Value& x, const std::string& name, const Convolution& layer) {
    // On CPUs channels lie innermost: the convolutions need no re-ordering, and the fused normalisation reads them as they come.
    const Tensor in = tensor_of(x);
    const Tensor images = in.device().is_cpu() ? in.contiguous(at::MemoryFormat::ChannelsLast) : in;
    return at::conv2d(images, parameter(name + ".weight"), parameter(name + ".bias"), layer.stride, layer.padding);
}

Value TorchOps::linear(const Value& x, const std::string& name, const Linear& layer) {
    return at::linear(tensor_of(x), parameter(name + ".weight"),
                      layer.bias ? std::optional<Tensor>(parameter(name + ".bias")) : std::nullopt);
}

Value TorchOps::group_norm(const Value& x, const std::string& name, const GroupNorm& layer) {
    const Tensor modulation = layer.modulation ? tensor_of(*layer.modulation) : Tensor();
    return fused_group_norm(tensor_of(x), parameter(name + ".weight"), parameter(name + ".bias"), modulation, layer.groups, layer.eps,
                            layer.silu);
}

Value TorchOps::layer_norm(const Value& x, const std::string& name, double eps) {
    const Tensor& weight = parameter(name + ".weight");
    return at::layer_norm(tensor_of(x), weight.sizes(), weight, parameter(name + ".bias"), eps);
}

Value TorchOps::attention(const Value& qkv, std::int64_t heads) {
    const Tensor x = tensor_of(qkv);
    const auto n = x.size(0), channels = x.size(1) / 3, height = x.size(2), width = x.size(3);
    const Tensor split = x.reshape({n, heads, channels / heads, 3, height * width});
    const auto part = [&](int i) { return split.select(3, i).transpose(-1, -2); };
    const Tensor attended = at::scaled_dot_product_attention(part(0), part(1), part(2));
    return attended.transpose(-1, -2).reshape({n, channels, height, width});
}

Value TorchOps::resample(const Value& x, Resample how) {
    switch (how) {
        case Resample::up: return at::upsample_nearest2d(tensor_of(x), std::nullopt, at::ArrayRef<double>{2.0, 2.0});
        case Resample::down: return at::avg_pool2d(tensor_of(x), {2, 2});
        case Resample::none: break;
    }
    return x;
}

Value TorchOps::concat(const Value& a, const Value& b) { return at::cat({tensor_of(a), tensor_of(b)}, 1); }

Value TorchOps::add(const Value& a, const Value& b) { return tensor_of(a) + tensor_of(b); }

Value TorchOps::scale(const Value& x, double factor) { return tensor_of(x) * factor; }

Value TorchOps::silu(const Value& x) { return at::silu(tensor_of(x)); }

Value TorchOps::sinusoid(const Value& x, std::int64_t width) {
    const Tensor numbers = tensor_of(x);
    const Tensor exponent = at::arange(width / 2, numbers.options()) / static_cast<double>(width / 2);
    const Tensor angles = at::outer(numbers, at::pow(1.0 / 10000, exponent));
    return at::cat({angles.cos(), angles.sin()}, 1);
}

Value TorchOps::pixel_unshuffle(const Value& x, std::int64_t factor) { return at::pixel_unshuffle(tensor_of(x), factor); }

Value TorchOps::pixel_shuffle(const Value& x, std::int64_t factor) { return at::pixel_shuffle(tensor_of(x), factor); }

Value TorchOps::global_average(const Value& x) { return tensor_of(x).mean({2, 3}); }

Bfloat16Compute::Bfloat16Compute(at::DeviceType device, bool active) : device_(device), active_(active) {
    if (!active_) return;
    before_ = at::autocast::is_autocast_enabled(device_);
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::increment_nesting();
}

Bfloat16Compute::~Bfloat16Compute() {
    if (!active_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, before_);
}

}  // namespace atelier::ops
