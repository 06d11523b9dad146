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

bool is_constant(const graph::Value& x) { return std::any_cast<Tensor>(&x) != nullptr; }

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

graph::Value value_of(const Node& node) { return node; }

Node node_of(const graph::Value& value) { return std::any_cast<const Node&>(value); }

ov::Tensor view_of(const Tensor& tensor) {
    const ov::element::Type type =
        tensor.scalar_type() == at::kChar ? ov::element::i8 : ov::element::f32;
    return {type, ov::Shape(tensor.sizes().begin(), tensor.sizes().end()),
            const_cast<void*>(tensor.const_data_ptr())};
}

OpenVinoOps::OpenVinoOps(const Parameters& parameters, Options options)
    : parameters_(parameters), options_(std::move(options)), constant_folder_(parameters) {}

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

Node OpenVinoOps::node(const graph::Value& x) const {
    if (!is_constant(x)) return typed(node_of(x));
    const Tensor& tensor = tensor_of(x);
    if (tensor.size(0) == 1 || !options_.rows) return typed(constant_of(tensor.narrow(0, 0, 1)));
    return typed(make<op::Gather>(constant_of(tensor), *options_.rows,
                                  make<op::Constant>(ov::element::i64, ov::Shape{}, 0)));
}

graph::Shape OpenVinoOps::shape(const graph::Value& x) const {
    if (is_constant(x)) return constant_folder_.shape(x);
    const ov::Shape& shape = node_of(x).get_shape();
    return {shape.begin(), shape.end()};
}

graph::Value OpenVinoOps::conv2d(const graph::Value& x, const std::string& name,
                                 const graph::Convolution& layer) {
    const auto stride = static_cast<std::size_t>(layer.stride);
    const ov::CoordinateDiff padding(2, layer.padding);
    const bool int8 = options_.int8 && is_quantised(parameters_, name);
    const auto computed = [&](const Node& values) { return int8 ? values : typed(values); };
    if (!int8 && options_.precision == ov::element::f32 && layer.kernel == 3 && layer.stride == 1 &&
        layer.padding == 1) {
        const graph::Shape from = shape(x);
        if (kernels::winograd_kernels::pays(from[2], from[3], from[1], layer.out_channels)) {
            return value_of(channels_first(make<WinogradNode>(ov::OutputVector{
                channels_last(node(x)), weight(name + ".weight"), weight(name + ".bias")})));
        }
    }
    const Node product = make<op::Convolution>(
        int8 ? quantised_input(node(x), name) : node(x), computed(constant(name + ".weight")),
        ov::Strides{stride, stride}, padding, padding, ov::Strides{1, 1});
    product.get_node()->set_friendly_name(name);
    return value_of(typed(
        make<op::Add>(product, computed(constant(name + ".bias", {1, layer.out_channels, 1, 1})))));
}

graph::Value OpenVinoOps::linear(const graph::Value& x, const std::string& name,
                                 const graph::Linear& layer) {
    // A constant with more rows than the layer has columns would be larger than the layer.
    if (is_constant(x) && shape(x)[0] <= shape(x)[1])
        return constant_folder_.linear(x, name, layer);
    const Node product = make<op::MatMul>(node(x), weight(name + ".weight"), false, true);
    product.get_node()->set_friendly_name(name);
    return value_of(layer.bias
                        ? make<op::Add>(product, weight(name + ".bias", {1, layer.out_features}))
                        : product);
}

OpenVinoOps::Affine OpenVinoOps::affine(const std::string& name, const graph::GroupNorm& layer,
                                        std::int64_t channels) const {
    const graph::Shape row{1, channels};
    if (!layer.modulation) return {constant(name + ".weight", row), constant(name + ".bias", row)};
    if (is_constant(*layer.modulation)) {
        const auto halves = tensor_of(*layer.modulation).chunk(2, 1);
        const Tensor factor = halves[0] + 1;
        return {constant_of(factor * parameters_.at(name + ".weight")),
                constant_of(at::addcmul(halves[1], factor, parameters_.at(name + ".bias"))),
                factor.size(0) > 1};
    }
    const auto halves =
        std::make_shared<op::Split>(as(ov::element::f32, node_of(*layer.modulation)),
                                    make<op::Constant>(ov::element::i64, ov::Shape{}, 1), 2);
    const Node factor = make<op::Add>(halves->output(0), floats({1, 1}, {1}));
    return {make<op::Multiply>(factor, constant(name + ".weight", row)),
            make<op::Add>(make<op::Multiply>(factor, constant(name + ".bias", row)),
                          halves->output(1))};
}

graph::Value OpenVinoOps::group_norm(const graph::Value& x, const std::string& name,
                                     const graph::GroupNorm& layer) {
    const Affine affine = this->affine(name, layer, shape(x)[1]);
    // The convolutions lay their images out with channels innermost, so the transpositions move
    // nothing.
    ov::OutputVector inputs{channels_last(node(x)), affine.weight, affine.bias};
    if (affine.has_rows) inputs.push_back(*options_.rows);
    return value_of(
        channels_first(make<FusedNormNode>(inputs, layer.groups, layer.eps, layer.silu)));
}

graph::Value OpenVinoOps::layer_norm(const graph::Value& x, const std::string& name, double eps) {
    if (is_constant(x)) return constant_folder_.layer_norm(x, name, eps);
    const Node y = make<op::MVN>(node(x), integers({-1}), true, static_cast<float>(eps),
                                 ov::op::MVNEpsMode::INSIDE_SQRT);
    return value_of(
        make<op::Add>(make<op::Multiply>(y, weight(name + ".weight")), weight(name + ".bias")));
}

graph::Value OpenVinoOps::attention(const graph::Value& qkv, std::int64_t heads) {
    const graph::Shape shape = this->shape(qkv);
    const std::int64_t channels = shape[1] / 3, pixels = shape[2] * shape[3];
    // From channels innermost, the layout of the convolutions: [N,pixels,heads,C/heads,3] -> three
    // of [N,heads,pixels,C/heads]
    const Node seen = reshaped(channels_last(node(qkv)), {0, pixels, heads, channels / heads, 3});
    const Node split = make<op::Transpose>(seen, integers({4, 0, 2, 1, 3}));
    const auto part = [&](std::int64_t i) {
        return make<op::Gather>(split, make<op::Constant>(ov::element::i64, ov::Shape{}, i),
                                integers({0}));
    };
    const Node attended = make<op::ScaledDotProductAttention>(part(0), part(1), part(2), false);
    return value_of(channels_first(reshaped(make<op::Transpose>(attended, integers({0, 2, 1, 3})),
                                            {0, shape[2], shape[3], channels})));
}

graph::Value OpenVinoOps::resample(const graph::Value& x, graph::Resample mode) {
    switch (mode) {
        case graph::Resample::up: {
            op::Interpolate::InterpolateAttrs nearest(
                op::Interpolate::InterpolateMode::NEAREST, op::Interpolate::ShapeCalcMode::SCALES,
                {0, 0}, {0, 0}, op::Interpolate::CoordinateTransformMode::ASYMMETRIC,
                op::Interpolate::NearestMode::FLOOR);
            return value_of(
                make<op::Interpolate>(node_of(x), floats({2}, {2, 2}), integers({2, 3}), nearest));
        }
        case graph::Resample::down:
            return value_of(make<op::AvgPool>(node_of(x), ov::Strides{2, 2}, ov::Shape{0, 0},
                                              ov::Shape{0, 0}, ov::Shape{2, 2}, true));
        case graph::Resample::smooth_up:
            return value_of(smooth_up(node(x)));
        case graph::Resample::smooth_down:
            return value_of(smooth_down(node(x), 1));
        case graph::Resample::smooth_down_valid:
            return value_of(smooth_down(node(x), 0));
        case graph::Resample::none:
            break;
    }
    return x;
}

graph::Value OpenVinoOps::concat(const graph::Value& a, const graph::Value& b) {
    return value_of(make<op::Concat>(ov::OutputVector{node(a), node(b)}, 1));
}

graph::Value OpenVinoOps::add(const graph::Value& a, const graph::Value& b) {
    if (is_constant(a) && is_constant(b)) return constant_folder_.add(a, b);
    const Node x = node(a), y = node(b);
    const bool per_channel = shape(b).size() < shape(a).size();
    return value_of(make<op::Add>(x, per_channel ? reshaped(y, {0, shape(b)[1], 1, 1}) : y));
}

graph::Value OpenVinoOps::scale(const graph::Value& x, double factor) {
    if (is_constant(x)) return constant_folder_.scale(x, factor);
    const Node& input =
        node_of(x);  // in its own precision: noise levels are scaled before their sinusoid
    return value_of(make<op::Multiply>(
        input, as(input.get_element_type(), floats({}, {static_cast<float>(factor)}))));
}

graph::Value OpenVinoOps::silu(const graph::Value& x) {
    if (is_constant(x)) return constant_folder_.silu(x);
    return value_of(make<op::Swish>(node_of(x)));
}

graph::Value OpenVinoOps::sinusoid(const graph::Value& x, const graph::Sinusoid& layer) {
    if (is_constant(x)) return constant_folder_.sinusoid(x, layer);
    const std::vector<float> frequencies = graph::frequencies_of(layer);
    return value_of(make<SinusoidNode>(
        ov::OutputVector{node_of(x), floats({1, frequencies.size()}, frequencies)},
        layer.sines_first));
}

graph::Value OpenVinoOps::fourier(const graph::Value& x, const std::string& name,
                                  std::int64_t width) {
    if (is_constant(x)) return constant_folder_.fourier(x, name, width);
    return value_of(make<SinusoidNode>(
        ov::OutputVector{node_of(x),
                         constant_of(parameters_.at(name).unsqueeze(0) * (2 * std::numbers::pi))},
        true));
}

graph::Value OpenVinoOps::pixel_unshuffle(const graph::Value& x, std::int64_t factor) {
    return value_of(make<op::SpaceToDepth>(node_of(x),
                                           op::SpaceToDepth::SpaceToDepthMode::DEPTH_FIRST,
                                           static_cast<std::size_t>(factor)));
}

graph::Value OpenVinoOps::pixel_shuffle(const graph::Value& x, std::int64_t factor) {
    return value_of(make<op::DepthToSpace>(node_of(x),
                                           op::DepthToSpace::DepthToSpaceMode::DEPTH_FIRST,
                                           static_cast<std::size_t>(factor)));
}

graph::Value OpenVinoOps::global_average(const graph::Value& x) {
    return value_of(make<op::ReduceMean>(node_of(x), integers({2, 3}), false));
}

}  // namespace atelier::backends
