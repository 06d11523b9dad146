#include "atelier/backends/onnx/onnx_ops.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "atelier/backends/torch/quantised.h"

namespace atelier::backends {

namespace {

using Integers = std::vector<std::int64_t>;

}  // namespace

std::vector<std::string> OnnxOps::run(const graph::Graph& graph,
                                      const std::vector<OnnxValue>& inputs) {
    std::vector<std::string> names;
    for (const OnnxValue& output : lower_folded(graph, parameters_, *this, inputs))
        names.push_back(name_of(output));
    return names;
}

std::string OnnxOps::name_of(const OnnxValue& value) {
    if (const auto* name = std::get_if<std::string>(&value)) return *name;
    const auto& constant = std::get<Tensor>(value);
    for (const auto& [tensor, name] : folded_) {
        if (tensor.is_same(constant)) return name;
    }
    folded_.emplace_back(constant, fmt::format("folded {}", folded_.size()));
    return graph_.constant(folded_.back().second, constant);
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

OnnxValue OnnxOps::lower(const graph::Conv2d& layer, const In& in) {
    const std::string &name = layer.name, x = name_of(in[0]);
    const bool int8 = is_quantised(parameters_, name);
    const std::int64_t k = layer.kernel, p = layer.padding;
    std::vector<std::string> inputs{int8 ? quantised_input(x, name) : x,
                                    int8 ? dequantised_weight(name) : weight(name + ".weight")};
    if (layer.bias) inputs.push_back(weight(name + ".bias"));
    return graph_.node("Conv", inputs, name,
                       {{"kernel_shape", Integers{k, k}},
                        {"strides", Integers{layer.stride, layer.stride}},
                        {"pads", Integers{p, p, p, p}}});
}

OnnxValue OnnxOps::lower(const graph::Linear& layer, const In& in) {
    const std::string& name = layer.name;
    std::string y = graph_.node("MatMul", {name_of(in[0]), matrix(name + ".weight")}, name);
    if (layer.bias) y = graph_.node("Add", {y, weight(name + ".bias")}, name);
    return y;
}

OnnxValue OnnxOps::lower(const graph::GroupNorm& layer, const In& in) {
    const std::string& name = layer.name;
    const graph::Shape& s = in.shape();
    const std::int64_t channels = s[1];
    // Each group as one channel of a plane, which is how PyTorch exports group norm and what
    // runtimes recognise.
    const std::string ones = graph_.constant(fmt::format("ones {}", layer.groups),
                                             at::ones({layer.groups})),
                      zeros = graph_.constant(fmt::format("zeros {}", layer.groups),
                                              at::zeros({layer.groups}));
    const std::string grouped = graph_.node(
        "InstanceNormalization", {reshaped(name_of(in[0]), {0, layer.groups, -1}), ones, zeros},
        name, {{"epsilon", static_cast<float>(layer.eps)}});
    const graph::Shape all_pixels{1, channels, 1, 1};
    std::string y = plus(
        times(reshaped(grouped, {0, channels, s[2], s[3]}), weight(name + ".weight", all_pixels)),
        weight(name + ".bias", all_pixels));
    if (in.count() > 1) {
        const std::string halves =
            graph_.node("Split", {reshaped(name_of(in[1]), {0, 2 * channels, 1, 1})}, name,
                        {{"axis", std::int64_t{1}}}, 2);
        y = plus(times(y, plus(halves, graph_.scalar(1))), OnnxGraph::result(halves, 1));
    }
    return layer.silu ? silu_of(y) : y;
}

OnnxValue OnnxOps::lower(const graph::LayerNorm& layer, const In& in) {
    const std::string& name = layer.name;
    std::vector<std::string> inputs{name_of(in[0])};
    if (layer.affine) {
        inputs.insert(inputs.end(), {weight(name + ".weight"), weight(name + ".bias")});
    } else {
        const std::int64_t features = in.shape().back();
        inputs.push_back(graph_.constant(fmt::format("ones {}", features), at::ones({features})));
    }
    return graph_.node("LayerNormalization", inputs, layer.affine ? name : "layer_norm",
                       {{"axis", std::int64_t{-1}}, {"epsilon", static_cast<float>(layer.eps)}});
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

OnnxValue OnnxOps::lower(const graph::Attention& layer, const In& in) {
    const graph::Shape& s = in.shape();
    const std::int64_t channels = s[1], pixels = s[2] * s[3], width = channels / layer.heads;
    const std::string seen = reshaped(name_of(in[0]), {0, layer.heads, width, 3, pixels});
    const auto by_pixels = [&](std::int64_t i) {
        return transposed(part(seen, 3, i), {0, 1, 3, 2});
    };
    const std::string y = attended(by_pixels(0), part(seen, 3, 1), by_pixels(2), width, 0);
    return reshaped(transposed(y, {0, 1, 3, 2}), {0, channels, s[2], s[3]});
}

/// A depthwise filter [C,1,4,4] per channel that sums to `gain`.
std::string OnnxOps::smoothing(std::int64_t channels, double gain) {
    const Tensor line = at::tensor({1.0F, 3.0F, 3.0F, 1.0F}) / 8;
    return graph_.constant(fmt::format("smoothing {} {}", channels, gain),
                           (gain * at::outer(line, line)).expand({channels, 1, 4, 4}));
}

OnnxValue OnnxOps::lower(const graph::Resampling& layer, const In& in) {
    const std::int64_t channels = in.shape()[1];
    const std::string x = name_of(in[0]);
    const auto filtered = [&](const std::string& type, double gain, std::int64_t padding) {
        return graph_.node(type, {x, smoothing(channels, gain)}, "resample",
                           {{"group", channels},
                            {"kernel_shape", Integers{4, 4}},
                            {"strides", Integers{2, 2}},
                            {"pads", Integers(4, padding)}});
    };
    switch (layer.mode) {
        case graph::Resample::up: {
            const std::string factors =
                graph_.constant("twice as large", at::tensor({1.0F, 1.0F, 2.0F, 2.0F}));
            return graph_.node("Resize", {x, "", factors}, "resample",
                               {{"mode", "nearest"},
                                {"coordinate_transformation_mode", "asymmetric"},
                                {"nearest_mode", "floor"}});
        }
        case graph::Resample::down:
            return graph_.node("AveragePool", {x}, "resample",
                               {{"kernel_shape", Integers{2, 2}}, {"strides", Integers{2, 2}}});
        case graph::Resample::smooth_up:
            return filtered("ConvTranspose", 4, 1);
        case graph::Resample::smooth_down:
            return filtered("Conv", 1, 1);
        case graph::Resample::smooth_down_valid:
            return filtered("Conv", 1, 0);
        case graph::Resample::none:
            break;
    }
    return x;
}

OnnxValue OnnxOps::lower(const graph::Concat&, const In& in) {
    return graph_.node("Concat", {name_of(in[0]), name_of(in[1])}, "concat",
                       {{"axis", std::int64_t{1}}});
}

OnnxValue OnnxOps::lower(const graph::Slice& layer, const In& in) {
    return graph_.node("Slice",
                       {name_of(in[0]), graph_.integers({layer.first}),
                        graph_.integers({layer.first + layer.count}), graph_.integers({1})},
                       "slice");
}

std::string OnnxOps::broadcast(const In& in) {
    const std::string y = name_of(in[1]);
    const graph::Shape &to = in.shape_of(0), &from = in.shape_of(1);
    if (from.size() == to.size()) return y;
    return reshaped(y,
                    to.size() == 3 ? graph::Shape{0, 1, from[1]} : graph::Shape{0, from[1], 1, 1});
}

OnnxValue OnnxOps::lower(const graph::Add&, const In& in) {
    return plus(name_of(in[0]), broadcast(in));
}

OnnxValue OnnxOps::lower(const graph::Multiply&, const In& in) {
    return times(name_of(in[0]), broadcast(in));
}

OnnxValue OnnxOps::lower(const graph::Scale& layer, const In& in) {
    const std::string scaled =
        times(name_of(in[0]), graph_.scalar(static_cast<float>(layer.factor)));
    return layer.shift == 0 ? scaled : plus(scaled, graph_.scalar(static_cast<float>(layer.shift)));
}

std::string OnnxOps::silu_of(const std::string& x) {
    return times(x, graph_.node("Sigmoid", {x}, "silu"));
}

OnnxValue OnnxOps::lower(const graph::Silu&, const In& in) { return silu_of(name_of(in[0])); }

OnnxValue OnnxOps::lower(const graph::Relu&, const In& in) {
    return graph_.node("Relu", {name_of(in[0])}, "relu");
}

OnnxValue OnnxOps::lower(const graph::Tanh&, const In& in) {
    return graph_.node("Tanh", {name_of(in[0])}, "tanh");
}

/// Of x [N] and frequencies [1,F]: [N,2F].
std::string OnnxOps::sinusoids(const std::string& x, const std::string& frequencies,
                               bool sines_first) {
    const std::string angles = times(reshaped(x, {-1, 1}), frequencies);
    const std::string sines = graph_.node("Sin", {angles}, "waves"),
                      cosines = graph_.node("Cos", {angles}, "waves");
    return graph_.node("Concat",
                       sines_first ? std::vector{sines, cosines} : std::vector{cosines, sines},
                       "waves", {{"axis", std::int64_t{1}}});
}

OnnxValue OnnxOps::lower(const graph::Sinusoid& layer, const In& in) {
    const std::int64_t half = layer.width / 2;
    const Tensor exponent =
        at::arange(half, at::kFloat) / static_cast<double>(layer.endpoint ? half - 1 : half);
    const std::string frequencies =
        graph_.constant(fmt::format("frequencies {} {}", half, layer.endpoint),
                        at::pow(1.0 / 10000, exponent).unsqueeze(0));
    const std::string waves = sinusoids(name_of(in[0]), frequencies, layer.sines_first);
    return in.shape_of(0).size() == 1 ? waves : reshaped(waves, {-1, in.shape()[1]});
}

OnnxValue OnnxOps::lower(const graph::Fourier& layer, const In& in) {
    const Tensor frequencies = parameters_.at(layer.name).detach().to(at::kFloat).unsqueeze(0);
    return sinusoids(name_of(in[0]),
                     graph_.constant(layer.name, frequencies * (2 * std::numbers::pi)), true);
}

OnnxValue OnnxOps::lower(const graph::PixelUnshuffle& layer, const In& in) {
    const std::int64_t factor = layer.factor;
    const graph::Shape &s = in.shape_of(0), &smaller = in.shape();
    const std::string cut =
        reshaped(name_of(in[0]), {0, s[1], smaller[2], factor, smaller[3], factor});
    return reshaped(transposed(cut, {0, 1, 3, 5, 2, 4}), {0, smaller[1], smaller[2], smaller[3]});
}

OnnxValue OnnxOps::lower(const graph::PixelShuffle& layer, const In& in) {
    return graph_.node("DepthToSpace", {name_of(in[0])}, "pixels",
                       {{"blocksize", layer.factor}, {"mode", layer.blocks_first ? "DCR" : "CRD"}});
}

OnnxValue OnnxOps::lower(const graph::GlobalAverage&, const In& in) {
    return graph_.node("ReduceMean", {name_of(in[0])}, "average",
                       {{"axes", Integers{2, 3}}, {"keepdims", std::int64_t{0}}});
}

}  // namespace atelier::backends
