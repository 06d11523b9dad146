#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

/// Threads that work through one thing together, step by step. Torch-free.
namespace atelier::ops {

/// Where the threads of a crew wait for each other, some hundred nanoseconds a time.
class Barrier {
public:
    explicit Barrier(std::int64_t threads) : threads_(threads) {}

    /// Returns when all threads have called it; what they wrote before is seen by all after.
    void wait();

private:
    std::int64_t threads_;
    std::atomic<std::int64_t> arrived_{0};
    std::atomic<std::uint64_t> round_{0};
};

/// Calls work(0) to work(threads-1) at once, work(0) on the caller's thread, and returns when all have returned. Callers side by side take turns where there are fewer cores than they want
/// threads together, so that no thread waits for one that has no core. The other threads are kept, and look out for the next call for some microseconds before they sleep. `work` throws
/// nothing, and calls no crew.
void by_crew(std::int64_t threads, const std::function<void(std::int64_t thread)>& work);

}  // namespace atelier::ops
