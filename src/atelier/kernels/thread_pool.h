#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

/// Threads that work through one task together, step by step. Torch-free.
namespace atelier::kernels {

/// A barrier for the threads of one run_on_pool call; waiting takes some hundred nanoseconds.
class Barrier {
public:
    explicit Barrier(std::int64_t threads) : threads_(threads) {}

    /// Returns when all threads have called it; writes made before it are visible to all threads
    /// after it.
    void wait();

private:
    std::int64_t threads_;
    std::atomic<std::int64_t> arrived_{0};
    std::atomic<std::uint64_t> round_{0};
};

/// Calls work(0) to work(threads-1) concurrently, work(0) on the caller's thread, and returns when
/// all have returned. Concurrent callers take turns where there are fewer cores than they need
/// threads, so that no thread waits for one that has no core. Worker threads are reused and spin
/// for some microseconds before they sleep. `work` must not throw and must not call run_on_pool.
void run_on_pool(std::int64_t threads, const std::function<void(std::int64_t thread)>& work);

}  // namespace atelier::kernels
