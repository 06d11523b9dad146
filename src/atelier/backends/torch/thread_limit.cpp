#include "atelier/backends/torch/thread_limit.h"

#include <ATen/Parallel.h>

#include <cstdlib>

#include "atelier/core/processors.h"

namespace atelier::backends {

void limit_threads() {
    const int now = at::get_num_threads();
    const std::int64_t usable = core::usable_processors();
    if (now <= usable) return;
    // A default that is too large was not requested by anyone, so it is limited silently.
    const char* variable = std::getenv("OMP_NUM_THREADS") != nullptr   ? "OMP_NUM_THREADS"
                           : std::getenv("MKL_NUM_THREADS") != nullptr ? "MKL_NUM_THREADS"
                                                                       : nullptr;
    at::set_num_threads(
        static_cast<int>(variable != nullptr ? core::threads_within(now, variable) : usable));
}

}  // namespace atelier::backends
