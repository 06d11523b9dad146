#pragma once

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <cstdint>

namespace atelier::backends {

/// Calls task(0) to task(count-1) on the threads of the running OpenVINO graph. Isolated: a thread
/// that waits for its tasks must not start another node's tasks in the same workspace.
inline constexpr auto tbb_parallel_for = [](std::int64_t count, auto&& task) {
    if (count == 1) task(0);
    else tbb::this_task_arena::isolate([&] { tbb::parallel_for(std::int64_t{0}, count, task); });
};

inline std::int64_t tbb_threads() { return tbb::this_task_arena::max_concurrency(); }

}  // namespace atelier::backends
