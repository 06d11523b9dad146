#pragma once

#include <openvino/opsets/opset13.hpp>

#include "atelier/ops/ops.h"

/// What both vocabularies of OpenVINO's speakers build their graphs from.
namespace atelier::ops::openvino_nodes {

namespace op = ov::opset13;

using Node = ov::Output<ov::Node>;

template <class Operation, class... Arguments>
Node make(Arguments&&... arguments) {
    return std::make_shared<Operation>(std::forward<Arguments>(arguments)...)->output(0);
}

inline Node integers(const std::vector<std::int64_t>& numbers) { return make<op::Constant>(ov::element::i64, ov::Shape{numbers.size()}, numbers); }

/// A size of 0 stays as it is: so batches need not be of the size that the graph was written for.
inline Node reshaped(const Node& x, const Shape& shape) { return make<op::Reshape>(x, integers(shape), true); }

inline Node as(const ov::element::Type& type, const Node& x) { return x.get_element_type() == type ? x : make<op::Convert>(x, type); }

}  // namespace atelier::ops::openvino_nodes
