#pragma once

#include <cstdint>
#include <functional>

namespace atelier::backends {

/// Calls task(0) to task(tasks-1) on LibTorch's threads, in any order and concurrently; on this
/// thread alone when nested in another such call. Rethrows an exception of a task.
void parallel_for(std::int64_t tasks, const std::function<void(std::int64_t)>& task);

}  // namespace atelier::backends
