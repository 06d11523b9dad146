#include "atelier/ops/crew.h"

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

namespace atelier::ops {

namespace {

constexpr int patience = 2'000;  // looks before a thread gives up its core: 30 to 100 microseconds

inline void rest() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

/// Looks until `done`, first at once, later whenever the core is free.
template <class Done>
void await(const Done& done) {
    for (int look = 0; !done(); ++look) {
        if (look < patience) rest();
        else std::this_thread::yield();
    }
}

class Crew {
public:
    void run(std::int64_t threads, const std::function<void(std::int64_t)>& work) {
        while (hired_ < threads - 1) {
            std::thread([this, thread = ++hired_, seen = call_.load()] { serve(thread, seen); }).detach();
        }
        work_ = &work;
        threads_ = threads;
        busy_.store(hired_, std::memory_order_relaxed);
        call_.fetch_add(1, std::memory_order_release);
        call_.notify_all();
        work(0);
        await([&] { return busy_.load(std::memory_order_acquire) == 0; });
    }

private:
    [[noreturn]] void serve(std::int64_t thread, std::uint64_t seen) {
        for (;; ++seen) {
            const auto called = [&] { return call_.load(std::memory_order_acquire) != seen; };
            for (int look = 0; look < patience && !called(); ++look) rest();
            while (!called()) call_.wait(seen, std::memory_order_acquire);
            if (thread < threads_) (*work_)(thread);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::int64_t hired_ = 0, threads_ = 1;
    const std::function<void(std::int64_t)>* work_ = nullptr;
    std::atomic<std::uint64_t> call_{0};
    std::atomic<std::int64_t> busy_{0};
};

/// Crews that are free, and how many threads the others have.
class Crews {
public:
    /// A crew, once there are cores for it.
    std::unique_ptr<Crew> take(std::int64_t threads) {
        std::unique_lock lock(mutex_);
        given_back_.wait(lock, [&] { return at_work_ == 0 || at_work_ + threads <= cores_; });
        at_work_ += threads;
        if (free_.empty()) return std::make_unique<Crew>();
        auto crew = std::move(free_.back());
        free_.pop_back();
        return crew;
    }

    void give_back(std::unique_ptr<Crew> crew, std::int64_t threads) {
        {
            const std::lock_guard lock(mutex_);
            at_work_ -= threads;
            free_.push_back(std::move(crew));
        }
        given_back_.notify_all();
    }

private:
    const std::int64_t cores_ = core::usable_processors();
    std::mutex mutex_;
    std::condition_variable given_back_;
    std::vector<std::unique_ptr<Crew>> free_;
    std::int64_t at_work_ = 0;
};

/// Never destroyed: threads sleep in its crews until the program ends. A forked child has none of those threads, and begins anew.
Crews*& crews_of_this_process() {
    static Crews* only = [] {
        pthread_atfork(nullptr, nullptr, [] { crews_of_this_process() = new Crews; });
        return new Crews;
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
    await([&] { return round_.load(std::memory_order_acquire) != round; });
}

void by_crew(std::int64_t threads, const std::function<void(std::int64_t)>& work) {
    if (threads == 1) return work(0);
    Crews& crews = *crews_of_this_process();
    auto crew = crews.take(threads);
    crew->run(threads, work);
    crews.give_back(std::move(crew), threads);
}

}  // namespace atelier::ops
