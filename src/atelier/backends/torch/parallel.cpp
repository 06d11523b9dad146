#include "atelier/backends/torch/parallel.h"

#include <ATen/Parallel.h>

// LibTorch's loop is in its header and silently runs on one thread where the compiler does not get
// the OpenMP flags; CMakeLists.txt sets them for this file.
#ifndef _OPENMP
#error "compile this file with OpenMP"
#endif

namespace atelier::backends {

void parallel_for(std::int64_t tasks, const std::function<void(std::int64_t)>& task) {
    at::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) task(i);
    });
}

}  // namespace atelier::backends
