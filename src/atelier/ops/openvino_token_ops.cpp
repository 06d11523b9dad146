#include "atelier/ops/openvino_ops.h"

#include "atelier/ops/openvino_nodes.h"

namespace atelier::ops {

namespace {

using namespace openvino_nodes;

Node scalar(const ov::element::Type& type, double value) {
    return make<op::Constant>(type, ov::Shape{}, std::vector<double>{value});
}

Node exact_gelu(const Node& x) { return make<op::Gelu>(x, ov::op::GeluApproximationMode::ERF); }

}  // namespace

Value OpenVinoOps::embedding(const Value& ids, const std::string& name, std::int64_t,
                             std::int64_t) {
    return value_of(make<op::Gather>(weight(name + ".weight"), node_of(ids),
                                     make<op::Constant>(ov::element::i64, ov::Shape{}, 0)));
}

Value OpenVinoOps::add_positions(const Value& x, const std::string& name, std::int64_t) {
    const Node in = node(x);
    const auto count = static_cast<std::int64_t>(in.get_shape()[1]);
    return value_of(
        make<op::Add>(in, make<op::Slice>(weight(name + ".weight"), integers({0}),
                                          integers({count}), integers({1}), integers({0}))));
}

Value OpenVinoOps::token_attention(const Value& q, const Value& k, const Value& v,
                                   const TokenAttention& layer) {
    const auto split = [&](const Value& x) {
        const Shape shape = this->shape(x);
        return make<op::Transpose>(
            reshaped(node(x), {0, shape[1], layer.heads, shape[2] / layer.heads}),
            integers({0, 2, 1, 3}));
    };
    const Node attended = make<op::Transpose>(
        make<op::ScaledDotProductAttention>(split(q), split(k), split(v), layer.causal),
        integers({0, 2, 1, 3}));
    return value_of(reshaped(attended, {0, shape(q)[1], shape(q)[2]}));
}

Value OpenVinoOps::gelu(const Value& x) { return value_of(exact_gelu(node(x))); }

Value OpenVinoOps::quick_gelu(const Value& x) {
    const Node in = node(x);
    return value_of(make<op::Multiply>(
        in, make<op::Sigmoid>(make<op::Multiply>(in, scalar(in.get_element_type(), 1.702)))));
}

Value OpenVinoOps::geglu(const Value& x) {
    const auto halves = std::make_shared<op::Split>(
        node(x), make<op::Constant>(ov::element::i64, ov::Shape{}, -1), 2);
    return value_of(make<op::Multiply>(halves->output(0), exact_gelu(halves->output(1))));
}

Value OpenVinoOps::tokens(const Value& image) {
    const Shape s = shape(image);
    return value_of(
        reshaped(make<op::Transpose>(node(image), integers({0, 2, 3, 1})), {0, s[2] * s[3], s[1]}));
}

Value OpenVinoOps::image(const Value& tokens, std::int64_t height, std::int64_t width) {
    return value_of(make<op::Transpose>(
        reshaped(node(tokens), {0, height, width, shape(tokens)[2]}), integers({0, 3, 1, 2})));
}

Value OpenVinoOps::pad_corner(const Value& x) {
    return value_of(make<op::Pad>(node(x), integers({0, 0, 0, 0}), integers({0, 0, 1, 1}),
                                  scalar(options_.precision, 0), ov::op::PadMode::CONSTANT));
}

}  // namespace atelier::ops
