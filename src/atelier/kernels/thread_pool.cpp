#include "atelier/kernels/thread_pool.h"

#include <pthread.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "atelier/core/processors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace atelier::kernels {

namespace {

constexpr int spins_before_sleep =
    2'000;  // polls before a thread gives up its core: 30 to 100 microseconds

inline void pause_core() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

/// Polls until `done`: spins at first, then yields between polls.
template <class Done>
void spin_until(const Done& done) {
    for (int look = 0; !done(); ++look) {
        if (look < spins_before_sleep) pause_core();
        else std::this_thread::yield();
    }
}

class ThreadPool {
public:
    void run(std::int64_t threads, const std::function<void(std::int64_t)>& work) {
        while (workers_ < threads - 1) {
            std::thread([this, thread = ++workers_, seen = call_.load()] {
                worker_loop(thread, seen);
            }).detach();
        }
        work_ = &work;
        threads_ = threads;
        busy_.store(workers_, std::memory_order_relaxed);
        call_.fetch_add(1, std::memory_order_release);
        call_.notify_all();
        work(0);
        spin_until([&] { return busy_.load(std::memory_order_acquire) == 0; });
    }

private:
    [[noreturn]] void worker_loop(std::int64_t thread, std::uint64_t seen) {
        for (;; ++seen) {
            const auto called = [&] { return call_.load(std::memory_order_acquire) != seen; };
            for (int look = 0; look < spins_before_sleep && !called(); ++look) pause_core();
            while (!called()) call_.wait(seen, std::memory_order_acquire);
            if (thread < threads_) (*work_)(thread);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::int64_t workers_ = 0, threads_ = 1;
    const std::function<void(std::int64_t)>* work_ = nullptr;
    std::atomic<std::uint64_t> call_{0};
    std::atomic<std::int64_t> busy_{0};
};

/// The idle pools, and how many threads the others use.
class ThreadPools {
public:
    /// Returns a pool once there are enough free cores for `threads`.
    std::unique_ptr<ThreadPool> take(std::int64_t threads) {
        std::unique_lock lock(mutex_);
        returned_.wait(lock,
                       [&] { return busy_threads_ == 0 || busy_threads_ + threads <= cores_; });
        busy_threads_ += threads;
        if (free_.empty()) return std::make_unique<ThreadPool>();
        auto pool = std::move(free_.back());
        free_.pop_back();
        return pool;
    }

    void give_back(std::unique_ptr<ThreadPool> pool, std::int64_t threads) {
        {
            const std::lock_guard lock(mutex_);
            busy_threads_ -= threads;
            free_.push_back(std::move(pool));
        }
        returned_.notify_all();
    }

private:
    const std::int64_t cores_ = core::usable_processors();
    std::mutex mutex_;
    std::condition_variable returned_;
    std::vector<std::unique_ptr<ThreadPool>> free_;
    std::int64_t busy_threads_ = 0;
};

/// Never destroyed: its workers sleep until the program ends. A forked child has none of those
/// threads and starts with new pools.
ThreadPools*& process_pools() {
    static ThreadPools* only = [] {
        pthread_atfork(nullptr, nullptr, [] { process_pools() = new ThreadPools; });
        return new ThreadPools;
    }();
    return only;
}

}  // namespace

void Barrier::wait() {
    if (threads_ == 1) return;
    const std::uint64_t round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    spin_until([&] { return round_.load(std::memory_order_acquire) != round; });
}

void run_on_pool(std::int64_t threads, const std::function<void(std::int64_t)>& work) {
    if (threads == 1) return work(0);
    ThreadPools& pools = *process_pools();
    auto pool = pools.take(threads);
    pool->run(threads, work);
    pools.give_back(std::move(pool), threads);
}

}  // namespace atelier::kernels
