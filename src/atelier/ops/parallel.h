#pragma once

#include <cstdint>
#include <functional>

namespace atelier::ops {

/// Calls task(0) to task(tasks-1) on LibTorch's threads, in any order and at once; on this thread alone within another such call. An exception of a task
/// is thrown on.
void in_parallel(std::int64_t tasks, const std::function<void(std::int64_t)>& task);

}  // namespace atelier::ops
