#include "atelier/backends/openvino/openvino_ops.h"

#include "atelier/backends/openvino/openvino_nodes.h"
#include "atelier/graph/sinusoid.h"

namespace atelier::backends {

namespace {

using namespace openvino_nodes;

Node scalar(const ov::element::Type& type, double value) {
    return make<op::Constant>(type, ov::Shape{}, std::vector<double>{value});
}

Node exact_gelu(const Node& x) { return make<op::Gelu>(x, ov::op::GeluApproximationMode::ERF); }

/// Rows [1,T,F] that are added to all samples.
Node rows(const Tensor& table) {
    const Tensor values = table.to(at::kFloat).contiguous();
    return make<op::Constant>(ov::element::f32,
                              ov::Shape(values.sizes().begin(), values.sizes().end()),
                              values.const_data_ptr<float>());
}

}  // namespace

OpenVinoValue OpenVinoOps::lower(const graph::Embedding& layer, const In& in) const {
    return make<op::Gather>(weight(layer.name + ".weight"), std::get<Node>(in[0]),
                            make<op::Constant>(ov::element::i64, ov::Shape{}, 0));
}

OpenVinoValue OpenVinoOps::lower(const graph::AddPositions& layer, const In& in) const {
    const std::int64_t count = in.shape()[1];
    return make<op::Add>(node(in[0]),
                         make<op::Slice>(weight(layer.name + ".weight"), integers({0}),
                                         integers({count}), integers({1}), integers({0})));
}

OpenVinoValue OpenVinoOps::lower(const graph::CroppedPositions& layer, const In& in) const {
    return make<op::Add>(node(in[0]),
                         typed(rows(cropped_table(parameters_.at(layer.name), layer))));
}

OpenVinoValue OpenVinoOps::lower(const graph::GridSinusoid& layer, const In& in) const {
    const graph::Shape& s = in.shape();
    return make<op::Add>(
        node(in[0]), typed(rows(at::tensor(graph::grid_table(layer, s[2])).view({1, s[1], s[2]}))));
}

OpenVinoValue OpenVinoOps::lower(const graph::RmsNorm& layer, const In& in) const {
    const graph::Shape& s = in.shape();
    const Node x =
        reshaped(as(ov::element::f32, node(in[0])), {0, s[1], layer.heads, s[2] / layer.heads});
    const Node mean = make<op::ReduceMean>(make<op::Multiply>(x, x), integers({-1}), true);
    const Node norm = make<op::Sqrt>(make<op::Add>(mean, scalar(ov::element::f32, layer.eps)));
    const Node scaled =
        make<op::Multiply>(make<op::Divide>(x, norm), constant(layer.name + ".weight"));
    return typed(reshaped(scaled, {0, s[1], s[2]}));
}

OpenVinoValue OpenVinoOps::lower(const graph::TokenAttention& layer, const In& in) const {
    const auto split = [&](std::size_t i) {
        const graph::Shape& shape = in.shape_of(i);
        return make<op::Transpose>(
            reshaped(node(in[i]), {0, shape[1], layer.heads, shape[2] / layer.heads}),
            integers({0, 2, 1, 3}));
    };
    const Node attended = make<op::Transpose>(
        make<op::ScaledDotProductAttention>(split(0), split(1), split(2), layer.causal),
        integers({0, 2, 1, 3}));
    return reshaped(attended, {0, in.shape()[1], in.shape()[2]});
}

OpenVinoValue OpenVinoOps::lower(const graph::Gelu& layer, const In& in) const {
    if (!layer.tanh) return exact_gelu(node(in[0]));
    return make<op::Gelu>(node(in[0]), ov::op::GeluApproximationMode::TANH);
}

OpenVinoValue OpenVinoOps::lower(const graph::QuickGelu&, const In& in) const {
    const Node x = node(in[0]);
    return make<op::Multiply>(
        x, make<op::Sigmoid>(make<op::Multiply>(x, scalar(x.get_element_type(), 1.702))));
}

OpenVinoValue OpenVinoOps::lower(const graph::Geglu&, const In& in) const {
    const auto halves = std::make_shared<op::Split>(
        node(in[0]), make<op::Constant>(ov::element::i64, ov::Shape{}, -1), 2);
    return make<op::Multiply>(halves->output(0), exact_gelu(halves->output(1)));
}

OpenVinoValue OpenVinoOps::lower(const graph::Tokens&, const In& in) const {
    return reshaped(make<op::Transpose>(node(in[0]), integers({0, 2, 3, 1})),
                    {0, in.shape()[1], in.shape()[2]});
}

OpenVinoValue OpenVinoOps::lower(const graph::Image& layer, const In& in) const {
    return make<op::Transpose>(reshaped(node(in[0]), {0, layer.height, layer.width, in.shape()[1]}),
                               integers({0, 3, 1, 2}));
}

OpenVinoValue OpenVinoOps::lower(const graph::PadCorner&, const In& in) const {
    return make<op::Pad>(node(in[0]), integers({0, 0, 0, 0}), integers({0, 0, 1, 1}),
                         scalar(options_.precision, 0), ov::op::PadMode::CONSTANT);
}

}  // namespace atelier::backends
