#include "atelier/backends/openvino/openvino_ops.h"

#include <numbers>

#include "atelier/backends/openvino/openvino_nodes.h"
#include "atelier/backends/openvino/openvino_norm.h"
#include "atelier/backends/openvino/openvino_sinusoid.h"
#include "atelier/backends/openvino/openvino_winograd.h"
#include "atelier/backends/torch/quantised.h"
#include "atelier/core/error.h"
#include "atelier/graph/sinusoid.h"
#include "atelier/kernels/winograd_forward.h"

namespace atelier::backends {

namespace {

using namespace openvino_nodes;

Node floats(const ov::Shape& shape, const std::vector<float>& values) {
    return make<op::Constant>(ov::element::f32, shape, values);
}

Node channels_last(const Node& x) { return make<op::Transpose>(x, integers({0, 2, 3, 1})); }

Node channels_first(const Node& x) { return make<op::Transpose>(x, integers({0, 3, 1, 2})); }

Node constant_of(const Tensor& tensor) {
    const Tensor values = tensor.to(at::kFloat).contiguous();
    return make<op::Constant>(ov::element::f32,
                              ov::Shape(values.sizes().begin(), values.sizes().end()),
                              values.const_data_ptr<float>());
}

/// A depthwise filter [C,1,1,4,4] per channel that sums to `gain`.
Node smoothing(const ov::element::Type& type, std::size_t channels, double gain) {
    std::vector<float> filter;
    for (const double row : {1, 3, 3, 1}) {
        for (const double column : {1, 3, 3, 1})
            filter.push_back(static_cast<float>(gain * row * column / 64));
    }
    const Node one = floats({1, 1, 1, 4, 4}, filter);
    return as(type,
              make<op::Tile>(one, integers({static_cast<std::int64_t>(channels), 1, 1, 1, 1})));
}

Node smooth_down(const Node& x, std::ptrdiff_t padding) {
    const ov::CoordinateDiff pads(2, padding);
    return make<op::GroupConvolution>(x, smoothing(x.get_element_type(), x.get_shape()[1], 1),
                                      ov::Strides{2, 2}, pads, pads, ov::Strides{1, 1});
}

Node smooth_up(const Node& x) {
    const ov::CoordinateDiff pads(2, 1);
    return make<op::GroupConvolutionBackpropData>(
        x, smoothing(x.get_element_type(), x.get_shape()[1], 4), ov::Strides{2, 2}, pads, pads,
        ov::Strides{1, 1});
}

/// A value that is not a constant.
const Node& node_of(const OpenVinoValue& value) { return std::get<Node>(value); }

/// A weight of two bytes per element as a constant of its own, in `shape` or its own: matrices in
/// the graph's type, so that no larger copy of them is ever made, anything else in float32, as
/// norms read it.
Node converted(const Tensor& tensor, const graph::Shape& shape,
               const ov::element::Type& precision) {
    const bool bfloat16 = precision == ov::element::bf16 && tensor.dim() >= 2;
    const Tensor values = tensor.to(bfloat16 ? at::kBFloat16 : at::kFloat).contiguous();
    const auto sizes = shape.empty() ? values.sizes() : at::IntArrayRef(shape);
    return make<op::Constant>(bfloat16 ? ov::element::bf16 : ov::element::f32,
                              ov::Shape(sizes.begin(), sizes.end()), values.const_data_ptr());
}

}  // namespace

ov::Tensor view_of(const Tensor& tensor) {
    const ov::element::Type type =
        tensor.scalar_type() == at::kChar ? ov::element::i8 : ov::element::f32;
    return {type, ov::Shape(tensor.sizes().begin(), tensor.sizes().end()),
            const_cast<void*>(tensor.const_data_ptr())};
}

OpenVinoOps::OpenVinoOps(const Parameters& parameters, Options options)
    : parameters_(parameters), options_(std::move(options)) {}

std::vector<Node> OpenVinoOps::run(const graph::Graph& graph,
                                   const std::vector<OpenVinoValue>& inputs) {
    std::vector<Node> outputs;
    for (const OpenVinoValue& output : lower_folded(graph, parameters_, *this, inputs))
        outputs.push_back(std::holds_alternative<Node>(output) ? node_of(output) : node(output));
    return outputs;
}

Node OpenVinoOps::constant(const std::string& name, const graph::Shape& shape) const {
    const Tensor& tensor = parameters_.at(name);
    const bool steps = tensor.scalar_type() == at::kChar;
    if (tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16)
        return converted(tensor, shape, options_.precision);
    if ((tensor.scalar_type() != at::kFloat && !steps) || !tensor.is_contiguous() ||
        !tensor.device().is_cpu()) {
        core::fail(
            "{}: OpenVINO reads contiguous weights in float32, float16, bfloat16 or int8 on the "
            "CPU",
            name);
    }
    const auto node =
        std::make_shared<op::Constant>(view_of(shape.empty() ? tensor : tensor.view(shape)));
    node->set_friendly_name(name);
    if (!steps) return node->output(0);
    graph::Shape channels(static_cast<std::size_t>(tensor.dim()), 1);
    channels[0] = tensor.size(0);
    return make<op::Multiply>(as(ov::element::f32, node->output(0)),
                              constant(name + "_scale", channels));
}

Node OpenVinoOps::quantised_input(const Node& x, const std::string& layer) const {
    const float range = input_range(parameters_, layer), step = range / int8_max;
    const auto transposed = ov::as_type_ptr<op::Transpose>(x.get_node_shared_ptr());
    const auto norm = transposed
                          ? ov::as_type_ptr<FusedNormNode>(transposed->get_input_node_shared_ptr(0))
                          : nullptr;
    const auto scalar = [](float value) { return floats({}, {value}); };
    if (norm) {  // the norm node rounds as it writes
        return channels_first(make<op::Multiply>(
            as(ov::element::f32, norm->quantised(1 / step)->output(0)), scalar(step)));
    }
    return make<op::FakeQuantize>(as(ov::element::f32, x), scalar(-range - step), scalar(range),
                                  scalar(-range - step), scalar(range), 256);
}

Node OpenVinoOps::typed(const Node& x) const { return as(options_.precision, x); }

Node OpenVinoOps::node(const OpenVinoValue& x) const {
    const auto* constant = std::get_if<Tensor>(&x);
    if (constant == nullptr) return typed(node_of(x));
    if (constant->size(0) == 1 || !options_.rows)
        return typed(constant_of(constant->narrow(0, 0, 1)));
    return typed(make<op::Gather>(constant_of(*constant), *options_.rows,
                                  make<op::Constant>(ov::element::i64, ov::Shape{}, 0)));
}

OpenVinoValue OpenVinoOps::lower(const graph::Conv2d& layer, const In& in) const {
    const std::string& name = layer.name;
    const auto stride = static_cast<std::size_t>(layer.stride);
    const ov::CoordinateDiff padding(2, layer.padding);
    const bool int8 = options_.int8 && is_quantised(parameters_, name);
    const auto computed = [&](const Node& values) { return int8 ? values : typed(values); };
    if (!int8 && layer.bias && options_.precision == ov::element::f32 && layer.kernel == 3 &&
        layer.stride == 1 && layer.padding == 1) {
        const graph::Shape& from = in.shape_of(0);
        if (kernels::winograd_kernels::pays(from[2], from[3], from[1], layer.out_channels)) {
            return channels_first(make<WinogradNode>(ov::OutputVector{
                channels_last(node(in[0])), weight(name + ".weight"), weight(name + ".bias")}));
        }
    }
    const Node product =
        make<op::Convolution>(int8 ? quantised_input(node(in[0]), name) : node(in[0]),
                              computed(constant(name + ".weight")), ov::Strides{stride, stride},
                              padding, padding, ov::Strides{1, 1});
    product.get_node()->set_friendly_name(name);
    if (!layer.bias) return typed(product);
    return typed(
        make<op::Add>(product, computed(constant(name + ".bias", {1, layer.out_channels, 1, 1}))));
}

OpenVinoValue OpenVinoOps::lower(const graph::Linear& layer, const In& in) const {
    const Node product = make<op::MatMul>(node(in[0]), weight(layer.name + ".weight"), false, true);
    product.get_node()->set_friendly_name(layer.name);
    return layer.bias
               ? make<op::Add>(product, weight(layer.name + ".bias", {1, layer.out_features}))
               : product;
}

OpenVinoOps::Affine OpenVinoOps::affine(const graph::GroupNorm& layer, const In& in) const {
    const std::string weight = layer.name + ".weight", bias = layer.name + ".bias";
    const graph::Shape row{1, in.shape()[1]};
    if (in.count() == 1) return {constant(weight, row), constant(bias, row)};
    if (const auto* modulation = std::get_if<Tensor>(&in[1])) {
        const auto halves = modulation->chunk(2, 1);
        const Tensor factor = halves[0] + 1;
        return {constant_of(factor * parameters_.at(weight)),
                constant_of(at::addcmul(halves[1], factor, parameters_.at(bias))),
                factor.size(0) > 1};
    }
    const auto halves =
        std::make_shared<op::Split>(as(ov::element::f32, node_of(in[1])),
                                    make<op::Constant>(ov::element::i64, ov::Shape{}, 1), 2);
    const Node factor = make<op::Add>(halves->output(0), floats({1, 1}, {1}));
    return {make<op::Multiply>(factor, constant(weight, row)),
            make<op::Add>(make<op::Multiply>(factor, constant(bias, row)), halves->output(1))};
}

OpenVinoValue OpenVinoOps::lower(const graph::GroupNorm& layer, const In& in) const {
    const Affine affine = this->affine(layer, in);
    // The convolutions lay their images out with channels innermost, so the transpositions move
    // nothing.
    ov::OutputVector inputs{channels_last(node(in[0])), affine.weight, affine.bias};
    if (affine.has_rows) inputs.push_back(*options_.rows);
    return channels_first(make<FusedNormNode>(inputs, layer.groups, layer.eps, layer.silu));
}

OpenVinoValue OpenVinoOps::lower(const graph::LayerNorm& layer, const In& in) const {
    const Node y = make<op::MVN>(node(in[0]), integers({-1}), true, static_cast<float>(layer.eps),
                                 ov::op::MVNEpsMode::INSIDE_SQRT);
    if (!layer.affine) return y;
    return make<op::Add>(make<op::Multiply>(y, weight(layer.name + ".weight")),
                         weight(layer.name + ".bias"));
}

OpenVinoValue OpenVinoOps::lower(const graph::Attention& layer, const In& in) const {
    const graph::Shape& shape = in.shape_of(0);
    const std::int64_t channels = shape[1] / 3, pixels = shape[2] * shape[3];
    // From channels innermost, the layout of the convolutions: [N,pixels,heads,C/heads,3] -> three
    // of [N,heads,pixels,C/heads]
    const Node seen =
        reshaped(channels_last(node(in[0])), {0, pixels, layer.heads, channels / layer.heads, 3});
    const Node split = make<op::Transpose>(seen, integers({4, 0, 2, 1, 3}));
    const auto part = [&](std::int64_t i) {
        return make<op::Gather>(split, make<op::Constant>(ov::element::i64, ov::Shape{}, i),
                                integers({0}));
    };
    const Node attended = make<op::ScaledDotProductAttention>(part(0), part(1), part(2), false);
    return channels_first(reshaped(make<op::Transpose>(attended, integers({0, 2, 1, 3})),
                                   {0, shape[2], shape[3], channels}));
}

OpenVinoValue OpenVinoOps::lower(const graph::Resampling& layer, const In& in) const {
    switch (layer.mode) {
        case graph::Resample::up: {
            op::Interpolate::InterpolateAttrs nearest(
                op::Interpolate::InterpolateMode::NEAREST, op::Interpolate::ShapeCalcMode::SCALES,
                {0, 0}, {0, 0}, op::Interpolate::CoordinateTransformMode::ASYMMETRIC,
                op::Interpolate::NearestMode::FLOOR);
            return make<op::Interpolate>(node_of(in[0]), floats({2}, {2, 2}), integers({2, 3}),
                                         nearest);
        }
        case graph::Resample::down:
            return make<op::AvgPool>(node_of(in[0]), ov::Strides{2, 2}, ov::Shape{0, 0},
                                     ov::Shape{0, 0}, ov::Shape{2, 2}, true);
        case graph::Resample::smooth_up:
            return smooth_up(node(in[0]));
        case graph::Resample::smooth_down:
            return smooth_down(node(in[0]), 1);
        case graph::Resample::smooth_down_valid:
            return smooth_down(node(in[0]), 0);
        case graph::Resample::none:
            break;
    }
    return in[0];
}

OpenVinoValue OpenVinoOps::lower(const graph::Concat&, const In& in) const {
    return make<op::Concat>(ov::OutputVector{node(in[0]), node(in[1])}, 1);
}

OpenVinoValue OpenVinoOps::lower(const graph::Slice& layer, const In& in) const {
    return make<op::Slice>(node(in[0]), integers({layer.first}),
                           integers({layer.first + layer.count}), integers({1}), integers({1}));
}

Node OpenVinoOps::broadcast(const In& in) const {
    const Node y = node(in[1]);
    const graph::Shape &to = in.shape_of(0), &from = in.shape_of(1);
    if (from.size() == to.size()) return y;
    return reshaped(y,
                    to.size() == 3 ? graph::Shape{0, 1, from[1]} : graph::Shape{0, from[1], 1, 1});
}

OpenVinoValue OpenVinoOps::lower(const graph::Add&, const In& in) const {
    return make<op::Add>(node(in[0]), broadcast(in));
}

OpenVinoValue OpenVinoOps::lower(const graph::Multiply&, const In& in) const {
    return make<op::Multiply>(node(in[0]), broadcast(in));
}

OpenVinoValue OpenVinoOps::lower(const graph::Scale& layer, const In& in) const {
    const Node& input =
        node_of(in[0]);  // in its own precision: noise levels are scaled before their sinusoid
    const auto number = [&](double value) {
        return as(input.get_element_type(), floats({}, {static_cast<float>(value)}));
    };
    const Node scaled = make<op::Multiply>(input, number(layer.factor));
    return layer.shift == 0 ? scaled : make<op::Add>(scaled, number(layer.shift));
}

OpenVinoValue OpenVinoOps::lower(const graph::Silu&, const In& in) const {
    return make<op::Swish>(node_of(in[0]));
}

OpenVinoValue OpenVinoOps::lower(const graph::Relu&, const In& in) const {
    return make<op::Relu>(node_of(in[0]));
}

OpenVinoValue OpenVinoOps::lower(const graph::Tanh&, const In& in) const {
    return make<op::Tanh>(node_of(in[0]));
}

OpenVinoValue OpenVinoOps::lower(const graph::Sinusoid& layer, const In& in) const {
    const std::vector<float> frequencies = graph::frequencies_of(layer);
    const Node &x = node_of(in[0]), all = floats({1, frequencies.size()}, frequencies);
    const auto waves = [&](const Node& values) {
        return make<SinusoidNode>(ov::OutputVector{values, all}, layer.sines_first);
    };
    if (in.shape_of(0).size() == 1) return waves(x);
    return reshaped(waves(reshaped(x, {-1})), {-1, in.shape()[1]});
}

OpenVinoValue OpenVinoOps::lower(const graph::Fourier& layer, const In& in) const {
    return make<SinusoidNode>(
        ov::OutputVector{node_of(in[0]), constant_of(parameters_.at(layer.name).unsqueeze(0) *
                                                     (2 * std::numbers::pi))},
        true);
}

OpenVinoValue OpenVinoOps::lower(const graph::PixelUnshuffle& layer, const In& in) const {
    return make<op::SpaceToDepth>(node_of(in[0]), op::SpaceToDepth::SpaceToDepthMode::DEPTH_FIRST,
                                  static_cast<std::size_t>(layer.factor));
}

OpenVinoValue OpenVinoOps::lower(const graph::PixelShuffle& layer, const In& in) const {
    using Mode = op::DepthToSpace::DepthToSpaceMode;
    return make<op::DepthToSpace>(node_of(in[0]),
                                  layer.blocks_first ? Mode::BLOCKS_FIRST : Mode::DEPTH_FIRST,
                                  static_cast<std::size_t>(layer.factor));
}

OpenVinoValue OpenVinoOps::lower(const graph::GlobalAverage&, const In& in) const {
    return make<op::ReduceMean>(node_of(in[0]), integers({2, 3}), false);
}

}  // namespace atelier::backends
