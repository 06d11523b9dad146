#pragma once

#include "atelier/backends/torch/torch.h"

namespace atelier::parallel {

/// The elements of a dense tensor in the order of its memory: [elements], sharing memory.
inline Tensor in_memory_order(const Tensor& tensor) {
    return tensor.as_strided({tensor.numel()}, {1}, tensor.storage_offset());
}

}  // namespace atelier::parallel
