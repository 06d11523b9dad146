#pragma once

#include <span>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/random_streams.h"

namespace atelier::diffusion {

/// Normal numbers first..first+count-1 of each stream, [streams, count] float32: the bits of
/// RandomStream::normal of a stream that has drawn nothing, computed on `device`: by our kernel, a
/// launch for each stream, or where it is not used by operations on int64 and float64, which round
/// alike everywhere; about 160, whatever the count.
Tensor device_normals(std::span<const core::RandomStream> streams, std::int64_t first,
                      std::int64_t count, at::Device device);

}  // namespace atelier::diffusion
