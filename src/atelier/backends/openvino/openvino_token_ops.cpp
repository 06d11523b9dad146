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

OpenVinoValue OpenVinoOps::lower(const graph::Gelu&, const In& in) const {
    return exact_gelu(node(in[0]));
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
