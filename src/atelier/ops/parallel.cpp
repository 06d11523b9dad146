#include "atelier/ops/parallel.h"

#include <ATen/Parallel.h>

// LibTorch's loop is in its header, and runs on one thread, silently, where the compiler was not told of OpenMP; CMakeLists.txt tells it for this file.
#ifndef _OPENMP
#error "compile this file with OpenMP"
#endif

namespace atelier::ops {

void in_parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& task) {
    at::parallel_for(0, tasks, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) task(i);
    });
}

}  // namespace atelier::ops
