#include "atelier/backends/openvino/openvino_ops.h"

#include "atelier/backends/openvino/openvino_nodes.h"

namespace atelier::backends {

namespace {

using namespace openvino_nodes;

Node scalar(const ov::element::Type& type, double value) {
    return make<op::Constant>(type, ov::Shape{}, std::vector<double>{value});
}

Node exact_gelu(const Node& x) { return make<op::Gelu>(x, ov::op::GeluApproximationMode::ERF); }

}  // namespace

graph::Value OpenVinoOps::embedding(const graph::Value& ids, const std::string& name, std::int64_t,
                                    std::int64_t) {
    return value_of(make<op::Gather>(weight(name + ".weight"), node_of(ids),
                                     make<op::Constant>(ov::element::i64, ov::Shape{}, 0)));
}

graph::Value OpenVinoOps::add_positions(const graph::Value& x, const std::string& name,
                                        std::int64_t) {
    const Node in = node(x);
    const auto count = static_cast<std::int64_t>(in.get_shape()[1]);
    return value_of(
        make<op::Add>(in, make<op::Slice>(weight(name + ".weight"), integers({0}),
                                          integers({count}), integers({1}), integers({0}))));
}

graph::Value OpenVinoOps::token_attention(const graph::Value& q, const graph::Value& k,
                                          const graph::Value& v,
                                          const graph::TokenAttention& layer) {
    const auto split = [&](const graph::Value& x) {
        const graph::Shape shape = this->shape(x);
        return make<op::Transpose>(
            reshaped(node(x), {0, shape[1], layer.heads, shape[2] / layer.heads}),
            integers({0, 2, 1, 3}));
    };
    const Node attended = make<op::Transpose>(
        make<op::ScaledDotProductAttention>(split(q), split(k), split(v), layer.causal),
        integers({0, 2, 1, 3}));
    return value_of(reshaped(attended, {0, shape(q)[1], shape(q)[2]}));
}

graph::Value OpenVinoOps::gelu(const graph::Value& x) { return value_of(exact_gelu(node(x))); }

graph::Value OpenVinoOps::quick_gelu(const graph::Value& x) {
    const Node in = node(x);
    return value_of(make<op::Multiply>(
        in, make<op::Sigmoid>(make<op::Multiply>(in, scalar(in.get_element_type(), 1.702)))));
}

graph::Value OpenVinoOps::geglu(const graph::Value& x) {
    const auto halves = std::make_shared<op::Split>(
        node(x), make<op::Constant>(ov::element::i64, ov::Shape{}, -1), 2);
    return value_of(make<op::Multiply>(halves->output(0), exact_gelu(halves->output(1))));
}

graph::Value OpenVinoOps::tokens(const graph::Value& image) {
    const graph::Shape s = shape(image);
    return value_of(
        reshaped(make<op::Transpose>(node(image), integers({0, 2, 3, 1})), {0, s[2] * s[3], s[1]}));
}

graph::Value OpenVinoOps::image(const graph::Value& tokens, std::int64_t height,
                                std::int64_t width) {
    return value_of(make<op::Transpose>(
        reshaped(node(tokens), {0, height, width, shape(tokens)[2]}), integers({0, 3, 1, 2})));
}

graph::Value OpenVinoOps::pad_corner(const graph::Value& x) {
    return value_of(make<op::Pad>(node(x), integers({0, 0, 0, 0}), integers({0, 0, 1, 1}),
                                  scalar(options_.precision, 0), ov::op::PadMode::CONSTANT));
}

}  // namespace atelier::backends
