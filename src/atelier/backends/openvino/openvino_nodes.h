#pragma once

#include <openvino/opsets/opset13.hpp>

#include "atelier/graph/graph.h"

/// Helpers shared by the sources that build OpenVINO graphs.
namespace atelier::backends::openvino_nodes {

namespace op = ov::opset13;

using Node = ov::Output<ov::Node>;

template <class Operation, class... Arguments>
Node make(Arguments&&... arguments) {
    return std::make_shared<Operation>(std::forward<Arguments>(arguments)...)->output(0);
}

inline Node integers(const std::vector<std::int64_t>& values) {
    return make<op::Constant>(ov::element::i64, ov::Shape{values.size()}, values);
}

/// A size of 0 keeps the axis, so that the batch size may differ from the one that the graph was
/// written for.
inline Node reshaped(const Node& x, const graph::Shape& shape) {
    return make<op::Reshape>(x, integers(shape), true);
}

inline Node as(const ov::element::Type& type, const Node& x) {
    return x.get_element_type() == type ? x : make<op::Convert>(x, type);
}

}  // namespace atelier::backends::openvino_nodes
