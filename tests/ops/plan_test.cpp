#include "atelier/ops/plan.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

#include "atelier/ops/plan_ops.h"
#include "atelier/ops/row_kernels.h"
#include "ops/compilations.h"
#include "ops/tensors.h"

namespace atelier::ops {
namespace {

TEST(Crew, every_thread_works_at_once) {
    for (const std::int64_t threads : {1, 2, 3, 5, 2}) {
        Barrier barrier(threads);
        std::vector<int> visits(static_cast<std::size_t>(threads));
        by_crew(threads, [&](std::int64_t thread) {
            barrier.wait();  // none returns from here before all have come
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

TEST(Crew, callers_take_turns_where_there_are_no_cores_for_all) {
    const std::int64_t all = std::max<std::int64_t>(2, std::thread::hardware_concurrency());
    std::atomic<int> inside = 0, most = 0, calls = 0;
    from_four_threads([&] {
        by_crew(all, [&](std::int64_t thread) {
            if (thread != 0) return;
            most = std::max(most.load(), ++inside);
            ++calls;
            --inside;
        });
    });
    EXPECT_EQ(most, 1);
    EXPECT_EQ(calls, 800);
}

TEST(Crew, callers_with_cores_for_all_do_not_wait_for_each_other) {
    if (std::thread::hardware_concurrency() < 4) GTEST_SKIP() << "needs four cores";
    Barrier both(2);
    const auto meet = [&] {
        by_crew(2, [&](std::int64_t thread) {
            if (thread == 0) both.wait();  // none returns before the other caller has come
        });
    };
    std::thread other(meet);
    meet();
    other.join();
}

TEST(Crew, a_forked_child_has_threads_of_its_own) {
    by_crew(2, [](std::int64_t) {});
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);  // rather than wait for ever for threads that are not there
        Barrier barrier(2);
        by_crew(2, [&](std::int64_t) { barrier.wait(); });
        ::_exit(7);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

TEST(Barrier, what_was_written_before_is_seen_after) {
    constexpr std::int64_t threads = 3, rounds = 2000;
    Barrier barrier(threads);
    std::vector<std::int64_t> written(threads);
    std::atomic<std::int64_t> wrong = 0;
    by_crew(threads, [&](std::int64_t thread) {
        for (std::int64_t round = 1; round <= rounds; ++round) {
            written[static_cast<std::size_t>(thread)] = round;
            barrier.wait();
            if (written[static_cast<std::size_t>((thread + 1) % threads)] != round) ++wrong;
            barrier.wait();
        }
    });
    EXPECT_EQ(wrong, 0);
}

/// Runs a plan without inputs on one thread.
void run_alone(const Plan& plan, std::vector<float>& room, std::int64_t samples) {
    Barrier alone(1);
    room.assign(plan.room(samples), 0);
    Scratch scratch;
    Plan::run({plan, room.data(), samples, nullptr, nullptr, nullptr, 0, 1, alone, scratch});
}

/// Places of random sizes and lives: each step fills its places with its own number and finds those that it reads as they were left.
TEST(Plan, places_that_are_needed_at_one_time_never_share_memory) {
    core::RandomStream random(3, "plans");
    for (int round = 0; round < 50; ++round) {
        Plan plan;
        std::vector<std::pair<Plan::Slot, std::int64_t>> known;
        int wrong = 0;
        std::int64_t needed = 0;
        const std::int64_t samples = 1 + static_cast<std::int64_t>(random.uniform() * 3);
        for (int step = 0; step < 40; ++step) {
            const auto size = 1 + static_cast<std::int64_t>(random.uniform() * 100);
            const bool fixed = random.uniform() < 0.3;
            const Plan::Slot slot = fixed ? plan.place(0, size) : plan.place(size);
            const std::int64_t numbers = fixed ? size : size * samples;
            needed += numbers;
            std::vector<std::pair<Plan::Slot, std::int64_t>> reads;
            for (const auto& one : known) {
                if (random.uniform() < 0.1) reads.push_back(one);
            }
            std::vector<Plan::Slot> slots;
            for (const auto& [read, count] : reads) slots.push_back(read);
            plan.step(slots, [=, &wrong](const Plan::Run& run) {
                for (const auto& [read, count] : reads) {
                    for (std::int64_t i = 0; i < count; ++i) wrong += run.at(read)[i] != static_cast<float>(read);
                }
                std::fill_n(run.at(slot), numbers, static_cast<float>(slot));
            });
            known.emplace_back(slot, numbers);
        }
        plan.finish();
        std::vector<float> room;
        run_alone(plan, room, samples);
        EXPECT_EQ(wrong, 0);
        EXPECT_LT(plan.room(samples), static_cast<std::size_t>(needed) * 2);
    }
}

TEST(Plan, places_whose_lives_do_not_meet_share_memory) {
    Plan plan;
    Plan::Slot last = plan.place(1000);
    plan.step({}, [](const Plan::Run&) {});
    for (int step = 0; step < 20; ++step) {
        const Plan::Slot next = plan.place(1000);
        plan.step({last}, [](const Plan::Run&) {});
        last = next;
    }
    plan.finish();
    EXPECT_LE(plan.room(1), 2 * 1008);
}

TEST(PlanOps, says_what_it_has_no_words_for) {
    Parameters none;
    PlanOps speaker(none);
    EXPECT_THROW(speaker.gelu(Value()), PlanOps::Unspoken);
    EXPECT_THROW(speaker.input(0, {77, 768}), PlanOps::Unspoken);
}

std::vector<Compilation<row_kernels::Table>> row_compilations() {
    using namespace row_kernels;
    return compilations_here<Table>(ATELIER_EVERY_COMPILATION);
}

TEST(RowKernels, agree_with_libtorch_at_every_length) {
    for (const auto& [name, table] : row_compilations()) {
        for (const std::int64_t count : {1, 3, 4, 15, 16, 17, 49, 64, 100}) {
            const Tensor x = normal({count}, "x") * 3, other = normal({count}, "other");
            const float* from = x.const_data_ptr<float>();
            Tensor y = at::empty({count});
            float* to = y.mutable_data_ptr<float>();
            table->silu(count, from, to);
            EXPECT_LT(relative_distance(y, at::silu(x)), 3e-7);
            table->add(count, from, other.const_data_ptr<float>(), 0.5F, to);
            EXPECT_LT(relative_distance(y, (x + other) * 0.5), 2e-7);
            const float* rows[]{from, other.const_data_ptr<float>(), from};
            const float weights[]{1, -2, 0.25F};
            table->weigh(count, 3, rows, weights, to);
            EXPECT_LT(relative_distance(y, x * 1.25 - other * 2), 3e-7);
            const Tensor pixels = normal({7, count}, "pixels"), away = pixels - x;
            Tensor sums = at::empty({2, count});
            table->moments(7, count, pixels.const_data_ptr<float>(), from, sums.mutable_data_ptr<float>());
            EXPECT_LT(relative_distance(sums, at::stack({away.sum(0), (away * away).sum(0)})), 1e-6);
        }
    }
}

}  // namespace
}  // namespace atelier::ops
