#pragma once

#include <type_traits>

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

/// A tensor's data under the element type of our own loops, in which bfloat16 is std::uint16_t. T
/// must be as wide as the tensor's type.
template <class T>
const T* data_of(const Tensor& tensor) {
    return static_cast<const T*>(tensor.const_data_ptr());
}

/// The same, writable.
template <class T>
T* writable_data_of(const Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
}

/// A table's loops for elements of type T.
template <class T, class Table>
const auto& loops_of(const Table& table) {
    if constexpr (std::is_same_v<T, float>) return table.float32;
    else return table.bfloat16;
}

}  // namespace atelier::backends
