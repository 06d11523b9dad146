#include "atelier/kernels/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "core/soon.h"

namespace atelier::kernels {
namespace {

TEST(ThreadPool, all_threads_work_concurrently) {
    for (const std::int64_t threads : {1, 2, 3, 5, 2}) {
        Barrier barrier(threads);
        std::vector<int> visits(static_cast<std::size_t>(threads));
        run_on_pool(threads, [&](std::int64_t thread) {
            barrier.wait();  // no thread returns from here before all have arrived
            ++visits[static_cast<std::size_t>(thread)];
        });
        EXPECT_EQ(visits, std::vector<int>(static_cast<std::size_t>(threads), 1));
    }
}

/// Calls `call` 200 times on each of four threads.
void from_four_threads(const std::function<void()>& call) {
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
        callers.emplace_back([&] {
            for (int n = 0; n < 200; ++n) call();
        });
    }
    for (auto& caller : callers) caller.join();
}

TEST(ThreadPool, callers_take_turns_where_there_are_too_few_cores) {
    const std::int64_t all = std::max<std::int64_t>(2, std::thread::hardware_concurrency());
    std::atomic<int> inside = 0, maximum = 0, calls = 0;
    from_four_threads([&] {
        run_on_pool(all, [&](std::int64_t thread) {
            if (thread != 0) return;
            maximum = std::max(maximum.load(), ++inside);
            ++calls;
            --inside;
        });
    });
    EXPECT_EQ(maximum, 1);
    EXPECT_EQ(calls, 800);
}

TEST(ThreadPool, callers_with_cores_for_all_do_not_wait_for_each_other) {
    if (std::thread::hardware_concurrency() < 4) GTEST_SKIP() << "needs four cores";
    std::atomic<int> inside = 0, met = 0;
    const auto meet = [&] {
        run_on_pool(2, [&](std::int64_t thread) {
            if (thread != 0) return;
            ++inside;
            met += core::soon([&] { return inside == 2; });
        });
    };
    std::thread other(meet);
    meet();
    other.join();
    EXPECT_EQ(met, 2) << "the second caller began only when the first had ended";
}

TEST(ThreadPool, a_forked_child_has_threads_of_its_own) {
    run_on_pool(2, [](std::int64_t) {});
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);  // instead of waiting forever for threads that do not exist
        Barrier barrier(2);
        run_on_pool(2, [&](std::int64_t) { barrier.wait(); });
        ::_exit(7);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

TEST(Barrier, writes_before_are_visible_after) {
    constexpr std::int64_t threads = 3, rounds = 2000;
    Barrier barrier(threads);
    std::vector<std::int64_t> written(threads);
    std::atomic<std::int64_t> wrong = 0;
    run_on_pool(threads, [&](std::int64_t thread) {
        for (std::int64_t round = 1; round <= rounds; ++round) {
            written[static_cast<std::size_t>(thread)] = round;
            barrier.wait();
            if (written[static_cast<std::size_t>((thread + 1) % threads)] != round) ++wrong;
            barrier.wait();
        }
    });
    EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace atelier::kernels
