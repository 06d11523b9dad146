#include "atelier/backends/onnx/onnx_ops.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "atelier/backends/torch/quantised.h"

namespace atelier::backends {

namespace {

struct OnnxValue {
    std::string name;
    graph::Shape shape;
};

using Integers = std::vector<std::int64_t>;

}  // namespace

graph::Value OnnxOps::value_of(const std::string& name, const graph::Shape& shape) {
    return OnnxValue{name, shape};
}

const std::string& OnnxOps::name_of(const graph::Value& value) {
    return std::any_cast<const OnnxValue&>(value).name;
}

graph::Shape OnnxOps::shape(const graph::Value& x) const {
    return std::any_cast<const OnnxValue&>(x).shape;
}

std::string OnnxOps::weight(const std::string& name, const graph::Shape& shape) {
    const Tensor values = parameters_.at(name).detach().to(at::kFloat);
    if (shape.empty()) return graph_.constant(name, values);
    return graph_.constant(fmt::format("{} {}", name, shape.size()), values.view(shape));
}

std::string OnnxOps::matrix(const std::string& name) {
    return graph_.constant(name + " transposed", parameters_.at(name).detach().to(at::kFloat).t());
}

std::string OnnxOps::reshaped(const std::string& x, const graph::Shape& shape) {
    return graph_.node("Reshape", {x, graph_.integers(shape)}, "shape");
}

std::string OnnxOps::transposed(const std::string& x, const Integers& order) {
    return graph_.node("Transpose", {x}, "order", {{"perm", order}});
}

std::string OnnxOps::part(const std::string& x, std::int64_t axis, std::int64_t index) {
    return graph_.node(
        "Gather",
        {x, graph_.constant(fmt::format("index {}", index), at::scalar_tensor(index, at::kLong))},
        "part", {{"axis", axis}});
}

std::string OnnxOps::quantised_input(const std::string& x, const std::string& layer) {
    const std::string step = graph_.scalar(input_range(parameters_, layer) / int8_max),
                      zero = graph_.constant("zero int8", at::scalar_tensor(0, at::kChar));
    return graph_.node("DequantizeLinear",
                       {graph_.node("QuantizeLinear", {x, step, zero}, layer), step, zero}, layer);
}

std::string OnnxOps::dequantised_weight(const std::string& layer) {
    const std::string weight = layer + ".weight";
    const Tensor& steps = parameters_.at(weight);
    const std::string zeros = graph_.constant(fmt::format("zeros int8 {}", steps.size(0)),
                                              at::zeros({steps.size(0)}, at::kChar));
    return graph_.node("DequantizeLinear",
                       {graph_.constant(weight, steps), this->weight(weight + "_scale"), zeros},
                       layer, {{"axis", std::int64_t{0}}});
}

graph::Value OnnxOps::conv2d(const graph::Value& x, const std::string& name,
                             const graph::Convolution& layer) {
    const bool int8 = is_quantised(parameters_, name);
    const std::int64_t k = layer.kernel, p = layer.padding;
    const std::string y = graph_.node(
        "Conv",
        {int8 ? quantised_input(name_of(x), name) : name_of(x),
         int8 ? dequantised_weight(name) : weight(name + ".weight"), weight(name + ".bias")},
        name,
        {{"kernel_shape", Integers{k, k}},
         {"strides", Integers{layer.stride, layer.stride}},
         {"pads", Integers{p, p, p, p}}});
    const graph::Shape s = shape(x);
    const auto side = [&](std::int64_t from) { return (from + 2 * p - k) / layer.stride + 1; };
    return value_of(y, {1, layer.out_channels, side(s[2]), side(s[3])});
}

graph::Value OnnxOps::linear(const graph::Value& x, const std::string& name,
                             const graph::Linear& layer) {
    std::string y = graph_.node("MatMul", {name_of(x), matrix(name + ".weight")}, name);
    if (layer.bias) y = graph_.node("Add", {y, weight(name + ".bias")}, name);
    graph::Shape s = shape(x);
    s.back() = layer.out_features;
    return value_of(y, s);
}

graph::Value OnnxOps::group_norm(const graph::Value& x, const std::string& name,
                                 const graph::GroupNorm& layer) {
    const graph::Shape s = shape(x);
    const std::int64_t channels = s[1];
    // Each group as one channel of a plane, which is how PyTorch exports group norm and what
    // runtimes recognise.
    const std::string ones = graph_.constant(fmt::format("ones {}", layer.groups),
                                             at::ones({layer.groups})),
                      zeros = graph_.constant(fmt::format("zeros {}", layer.groups),
                                              at::zeros({layer.groups}));
    const std::string grouped = graph_.node(
        "InstanceNormalization", {reshaped(name_of(x), {0, layer.groups, -1}), ones, zeros}, name,
        {{"epsilon", static_cast<float>(layer.eps)}});
    const graph::Shape all_pixels{1, channels, 1, 1};
    std::string y = plus(
        times(reshaped(grouped, {0, channels, s[2], s[3]}), weight(name + ".weight", all_pixels)),
        weight(name + ".bias", all_pixels));
    if (layer.modulation) {
        const std::string halves =
            graph_.node("Split", {reshaped(name_of(*layer.modulation), {0, 2 * channels, 1, 1})},
                        name, {{"axis", std::int64_t{1}}}, 2);
        y = plus(times(y, plus(halves, graph_.scalar(1))), OnnxGraph::result(halves, 1));
    }
    const graph::Value normed = value_of(y, s);
    return layer.silu ? silu(normed) : normed;
}

graph::Value OnnxOps::layer_norm(const graph::Value& x, const std::string& name, double eps) {
    return value_of(
        graph_.node("LayerNormalization",
                    {name_of(x), weight(name + ".weight"), weight(name + ".bias")}, name,
                    {{"axis", std::int64_t{-1}}, {"epsilon", static_cast<float>(eps)}}),
        shape(x));
}

/// Of q and v [N,heads,T,C], and keys [N,heads,C,T].
std::string OnnxOps::attended(const std::string& q, const std::string& keys, const std::string& v,
                              std::int64_t width, std::int64_t causal_tokens) {
    std::string scores = graph_.node(
        "MatMul",
        {times(q, graph_.scalar(static_cast<float>(1 / std::sqrt(static_cast<double>(width))))),
         keys},
        "scores");
    if (causal_tokens > 0) {
        const Tensor hidden =
            at::full({causal_tokens, causal_tokens}, -std::numeric_limits<float>::infinity())
                .triu(1);
        scores = plus(scores, graph_.constant(fmt::format("causal {}", causal_tokens), hidden));
    }
    return graph_.node(
        "MatMul", {graph_.node("Softmax", {scores}, "attention", {{"axis", std::int64_t{-1}}}), v},
        "attention");
}

graph::Value OnnxOps::attention(const graph::Value& qkv, std::int64_t heads) {
    const graph::Shape s = shape(qkv);
    const std::int64_t channels = s[1] / 3, pixels = s[2] * s[3], width = channels / heads;
    const std::string seen = reshaped(name_of(qkv), {0, heads, width, 3, pixels});
    const auto by_pixels = [&](std::int64_t i) {
        return transposed(part(seen, 3, i), {0, 1, 3, 2});
    };
    const std::string y = attended(by_pixels(0), part(seen, 3, 1), by_pixels(2), width, 0);
    return value_of(reshaped(transposed(y, {0, 1, 3, 2}), {0, channels, s[2], s[3]}),
                    {1, channels, s[2], s[3]});
}

/// A depthwise filter [C,1,4,4] per channel that sums to `gain`.
std::string OnnxOps::smoothing(std::int64_t channels, double gain) {
    const Tensor line = at::tensor({1.0F, 3.0F, 3.0F, 1.0F}) / 8;
    return graph_.constant(fmt::format("smoothing {} {}", channels, gain),
                           (gain * at::outer(line, line)).expand({channels, 1, 4, 4}));
}

graph::Value OnnxOps::resample(const graph::Value& x, graph::Resample mode) {
    const graph::Shape s = shape(x);
    const std::int64_t channels = s[1];
    const auto filtered = [&](const std::string& type, double gain, std::int64_t padding) {
        return graph_.node(type, {name_of(x), smoothing(channels, gain)}, "resample",
                           {{"group", channels},
                            {"kernel_shape", Integers{4, 4}},
                            {"strides", Integers{2, 2}},
                            {"pads", Integers(4, padding)}});
    };
    const graph::Shape half{1, channels, s[2] / 2, s[3] / 2},
        twice{1, channels, s[2] * 2, s[3] * 2};
    switch (mode) {
        case graph::Resample::up: {
            const std::string factors =
                graph_.constant("twice as large", at::tensor({1.0F, 1.0F, 2.0F, 2.0F}));
            return value_of(graph_.node("Resize", {name_of(x), "", factors}, "resample",
                                        {{"mode", "nearest"},
                                         {"coordinate_transformation_mode", "asymmetric"},
                                         {"nearest_mode", "floor"}}),
                            twice);
        }
        case graph::Resample::down:
            return value_of(
                graph_.node("AveragePool", {name_of(x)}, "resample",
                            {{"kernel_shape", Integers{2, 2}}, {"strides", Integers{2, 2}}}),
                half);
        case graph::Resample::smooth_up:
            return value_of(filtered("ConvTranspose", 4, 1), twice);
        case graph::Resample::smooth_down:
            return value_of(filtered("Conv", 1, 1), half);
        case graph::Resample::smooth_down_valid:
            return value_of(filtered("Conv", 1, 0), {1, channels, s[2] / 2 - 1, s[3] / 2 - 1});
        case graph::Resample::none:
            break;
    }
    return x;
}

graph::Value OnnxOps::concat(const graph::Value& a, const graph::Value& b) {
    graph::Shape s = shape(a);
    s[1] += shape(b)[1];
    return value_of(
        graph_.node("Concat", {name_of(a), name_of(b)}, "concat", {{"axis", std::int64_t{1}}}), s);
}

graph::Value OnnxOps::add(const graph::Value& a, const graph::Value& b) {
    const bool per_channel = shape(b).size() < shape(a).size();
    return value_of(
        plus(name_of(a), per_channel ? reshaped(name_of(b), {0, shape(b)[1], 1, 1}) : name_of(b)),
        shape(a));
}

graph::Value OnnxOps::scale(const graph::Value& x, double factor) {
    return value_of(times(name_of(x), graph_.scalar(static_cast<float>(factor))), shape(x));
}

graph::Value OnnxOps::silu(const graph::Value& x) {
    return value_of(times(name_of(x), graph_.node("Sigmoid", {name_of(x)}, "silu")), shape(x));
}

/// Of x [N] and frequencies [1,F]: [N,2F].
std::string OnnxOps::sinusoids(const graph::Value& x, const std::string& frequencies,
                               bool sines_first) {
    const std::string angles = times(reshaped(name_of(x), {-1, 1}), frequencies);
    const std::string sines = graph_.node("Sin", {angles}, "waves"),
                      cosines = graph_.node("Cos", {angles}, "waves");
    return graph_.node("Concat",
                       sines_first ? std::vector{sines, cosines} : std::vector{cosines, sines},
                       "waves", {{"axis", std::int64_t{1}}});
}

graph::Value OnnxOps::sinusoid(const graph::Value& x, const graph::Sinusoid& layer) {
    const std::int64_t half = layer.width / 2;
    const Tensor exponent =
        at::arange(half, at::kFloat) / static_cast<double>(layer.endpoint ? half - 1 : half);
    const std::string frequencies =
        graph_.constant(fmt::format("frequencies {} {}", half, layer.endpoint),
                        at::pow(1.0 / 10000, exponent).unsqueeze(0));
    return value_of(sinusoids(x, frequencies, layer.sines_first), {1, layer.width});
}

graph::Value OnnxOps::fourier(const graph::Value& x, const std::string& name, std::int64_t width) {
    return value_of(
        sinusoids(x,
                  graph_.constant(name, parameters_.at(name).detach().to(at::kFloat).unsqueeze(0) *
                                            (2 * std::numbers::pi)),
                  true),
        {1, width});
}

graph::Value OnnxOps::pixel_unshuffle(const graph::Value& x, std::int64_t factor) {
    const graph::Shape s = shape(x),
                       smaller{1, s[1] * factor * factor, s[2] / factor, s[3] / factor};
    const std::string cut = reshaped(name_of(x), {0, s[1], smaller[2], factor, smaller[3], factor});
    return value_of(
        reshaped(transposed(cut, {0, 1, 3, 5, 2, 4}), {0, smaller[1], smaller[2], smaller[3]}),
        smaller);
}

graph::Value OnnxOps::pixel_shuffle(const graph::Value& x, std::int64_t factor) {
    const graph::Shape s = shape(x);
    return value_of(graph_.node("DepthToSpace", {name_of(x)}, "pixels",
                                {{"blocksize", factor}, {"mode", "CRD"}}),
                    {1, s[1] / (factor * factor), s[2] * factor, s[3] * factor});
}

graph::Value OnnxOps::global_average(const graph::Value& x) {
    return value_of(graph_.node("ReduceMean", {name_of(x)}, "average",
                                {{"axes", Integers{2, 3}}, {"keepdims", std::int64_t{0}}}),
                    {1, shape(x)[1]});
}

}  // namespace atelier::backends
