#pragma once

#include <type_traits>

#include "atelier/ops/torch.h"

namespace atelier::ops {

/// A tensor's numbers as our own loops name their type: bfloat16 is bits there. T must be as wide as the tensor's type.
template <class T>
const T* data_of(const Tensor& tensor) {
    return static_cast<const T*>(tensor.const_data_ptr());
}

/// The same, to be written.
template <class T>
T* writable_data_of(const Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
}

/// A table's loops for numbers of type T.
template <class T, class Table>
const auto& loops_of(const Table& table) {
    if constexpr (std::is_same_v<T, float>) return table.float32;
    else return table.bfloat16;
}

}  // namespace atelier::ops
