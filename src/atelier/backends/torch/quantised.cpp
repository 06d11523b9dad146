#include "atelier/backends/torch/quantised.h"

#include "atelier/core/error.h"

namespace atelier::backends {

namespace {

constexpr std::string_view weight = ".weight", scale = ".weight_scale", range = ".input_range";

std::string named(const std::string& layer, std::string_view what) {
    return layer + std::string(what);
}

/// The layer that a tensor belongs to, or nullopt when the name does not end with `what`.
std::optional<std::string> layer_of(const std::string& name, std::string_view what) {
    if (!name.ends_with(what)) return std::nullopt;
    return name.substr(0, name.size() - what.size());
}

bool is_int8(const Tensor& tensor) { return tensor.scalar_type() == at::kChar; }

Tensor expand_like(const Tensor& scales, const Tensor& like) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
    shape[0] = scales.numel();
    return scales.view(shape);
}

Tensor dequantised(const Parameters& parameters, const std::string& layer) {
    const Tensor& steps = parameters.at(named(layer, weight));
    return steps.to(at::kFloat) * expand_like(parameters.at(named(layer, scale)), steps);
}

bool is_quantisation_tensor(const Parameters& parameters, const std::string& name) {
    for (const std::string_view what : {scale, range}) {
        const auto layer = layer_of(name, what);
        if (layer && is_quantised(parameters, *layer)) return true;
    }
    return false;
}

void check(const Parameters& parameters, const std::string& layer, const std::string& where) {
    const Tensor& steps = parameters.at(named(layer, weight));
    const auto positive = [&](std::string_view what, const std::vector<std::int64_t>& shape) {
        const std::string name = named(layer, what);
        if (!parameters.contains(name))
            core::fail("{}: \"{}{}\" is int8, but there is no \"{}\"", where, layer, weight, name);
        const Tensor& values = parameters.at(name);
        if (values.scalar_type() != at::kFloat || values.sizes().vec() != shape ||
            !(values > 0).all().item<bool>()) {
            core::fail("{}: \"{}\" must be positive float32 values of shape {}", where, name,
                       core::to_string(shape));
        }
    };
    if (steps.dim() != 4)
        core::fail("{}: \"{}{}\" is int8; only convolutions can be", where, layer, weight);
    positive(scale, {steps.size(0)});
    positive(range, {});
}

}  // namespace

bool is_quantised(const Parameters& parameters, const std::string& layer) {
    const auto found = parameters.tensors().find(named(layer, weight));
    return found != parameters.tensors().end() && is_int8(found->second);
}

float input_range(const Parameters& parameters, const std::string& layer) {
    return parameters.at(named(layer, range)).item<float>();
}

void quantise(Parameters& parameters, const std::string& layer, float input_range) {
    const Tensor& full = parameters.at(named(layer, weight));
    // A channel of zeros may have any scale.
    const Tensor scales = (full.flatten(1).abs().amax(1) / int8_max).clamp_min(1e-12);
    const Tensor steps =
        (full / expand_like(scales, full)).round().clamp(-int8_max, int8_max).to(at::kChar);
    parameters.set(named(layer, weight), steps.contiguous());
    parameters.set(named(layer, scale), scales);
    parameters.set(named(layer, range), at::scalar_tensor(input_range, at::kFloat));
}

Parameters dequantised(const Parameters& parameters) {
    Parameters full;
    for (const auto& [name, tensor] : parameters.tensors()) {
        if (is_quantisation_tensor(parameters, name)) continue;
        const auto layer = layer_of(name, weight);
        full.set(name, layer && is_int8(tensor) ? dequantised(parameters, *layer) : tensor);
    }
    return full;
}

Parameters without_quantisation(const Parameters& parameters, const std::string& where) {
    Parameters own;
    for (const auto& [name, tensor] : parameters.tensors()) {
        const auto layer = layer_of(name, weight);
        if (layer && is_int8(tensor)) check(parameters, *layer, where);
        if (!is_quantisation_tensor(parameters, name)) own.set(name, tensor);
    }
    return own;
}

Tensor fake_quantised(const Tensor& x, double range) {
    const double step = range / int8_max;
    return (x / step).round().clamp(-int8_max, int8_max) * step;
}

}  // namespace atelier::backends
