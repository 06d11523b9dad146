#include "atelier/backends/native/program.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

#include "atelier/backends/native/program_ops.h"
#include "atelier/kernels/row_kernels.h"
#include "backends/tensors.h"
#include "kernels/compilations.h"

namespace atelier::backends {
namespace {

TEST(ThreadPool, all_threads_work_concurrently) {
    for (const std::int64_t threads : {1, 2, 3, 5, 2}) {
        kernels::Barrier barrier(threads);
        std::vector<int> visits(static_cast<std::size_t>(threads));
        kernels::run_on_pool(threads, [&](std::int64_t thread) {
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
        kernels::run_on_pool(all, [&](std::int64_t thread) {
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
    kernels::Barrier both(2);
    const auto meet = [&] {
        kernels::run_on_pool(2, [&](std::int64_t thread) {
            if (thread == 0) both.wait();  // does not return before the other caller has arrived
        });
    };
    std::thread other(meet);
    meet();
    other.join();
}

TEST(ThreadPool, a_forked_child_has_threads_of_its_own) {
    kernels::run_on_pool(2, [](std::int64_t) {});
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(20);  // instead of waiting forever for threads that do not exist
        kernels::Barrier barrier(2);
        kernels::run_on_pool(2, [&](std::int64_t) { barrier.wait(); });
        ::_exit(7);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

TEST(Barrier, writes_before_are_visible_after) {
    constexpr std::int64_t threads = 3, rounds = 2000;
    kernels::Barrier barrier(threads);
    std::vector<std::int64_t> written(threads);
    std::atomic<std::int64_t> wrong = 0;
    kernels::run_on_pool(threads, [&](std::int64_t thread) {
        for (std::int64_t round = 1; round <= rounds; ++round) {
            written[static_cast<std::size_t>(thread)] = round;
            barrier.wait();
            if (written[static_cast<std::size_t>((thread + 1) % threads)] != round) ++wrong;
            barrier.wait();
        }
    });
    EXPECT_EQ(wrong, 0);
}

/// Runs a program without inputs on one thread.
void run_alone(const Program& program, std::vector<float>& memory, std::int64_t samples) {
    kernels::Barrier alone(1);
    memory.assign(program.memory_size(samples), 0);
    kernels::Workspace workspace;
    Program::run(
        {program, memory.data(), samples, nullptr, nullptr, nullptr, 0, 1, alone, workspace});
}

/// Buffers of random sizes and lifetimes: each step fills its buffers with its own number and
/// checks that those that it reads are unchanged.
TEST(Program, buffers_that_are_alive_at_the_same_time_never_overlap) {
    core::RandomStream random(3, "plans");
    for (int round = 0; round < 50; ++round) {
        Program program;
        std::vector<std::pair<Program::Slot, std::int64_t>> known;
        int wrong = 0;
        std::int64_t needed = 0;
        const std::int64_t samples = 1 + static_cast<std::int64_t>(random.uniform() * 3);
        for (int step = 0; step < 40; ++step) {
            const auto size = 1 + static_cast<std::int64_t>(random.uniform() * 100);
            const bool fixed = random.uniform() < 0.3;
            const Program::Slot slot = fixed ? program.allocate(0, size) : program.allocate(size);
            const std::int64_t length = fixed ? size : size * samples;
            needed += length;
            std::vector<std::pair<Program::Slot, std::int64_t>> reads;
            for (const auto& one : known) {
                if (random.uniform() < 0.1) reads.push_back(one);
            }
            std::vector<Program::Slot> slots;
            for (const auto& [read, count] : reads) slots.push_back(read);
            program.step(slots, [=, &wrong](const Program::Run& run) {
                for (const auto& [read, count] : reads) {
                    for (std::int64_t i = 0; i < count; ++i)
                        wrong += run.at(read)[i] != static_cast<float>(read);
                }
                std::fill_n(run.at(slot), length, static_cast<float>(slot));
            });
            known.emplace_back(slot, length);
        }
        program.finish();
        std::vector<float> memory;
        run_alone(program, memory, samples);
        EXPECT_EQ(wrong, 0);
        EXPECT_LT(program.memory_size(samples), static_cast<std::size_t>(needed) * 2);
    }
}

TEST(Program, buffers_with_disjoint_lifetimes_share_memory) {
    Program program;
    Program::Slot last = program.allocate(1000);
    program.step({}, [](const Program::Run&) {});
    for (int step = 0; step < 20; ++step) {
        const Program::Slot next = program.allocate(1000);
        program.step({last}, [](const Program::Run&) {});
        last = next;
    }
    program.finish();
    EXPECT_LE(program.memory_size(1), 2 * 1008);
}

/// The graph of `body` for an input of `shape`.
graph::Graph graph_of(const graph::Shape& shape, const graph::Body& body) {
    return graph::record({shape}, [&](graph::Builder& ops, std::span<const graph::Value> in) {
        return std::vector{body(ops, in)};
    });
}

TEST(ProgramOps, names_the_first_op_that_programs_lack) {
    using graph::Builder;
    using In = std::span<const graph::Value>;
    EXPECT_EQ(unsupported_by_programs(
                  graph_of({1, 8}, [](Builder& ops, In in) { return ops.silu(in[0]); })),
              "");
    const graph::Graph inside = graph_of({1, 8}, [](Builder& ops, In in) {
        return ops.silu(ops.block(in, [](Builder& inner, In x) {
            return inner.layer_norm(inner.gelu(x[0]), "norm", 1e-5);
        }));
    });
    EXPECT_EQ(unsupported_by_programs(inside), "gelu");
    EXPECT_EQ(unsupported_by_programs(
                  graph_of({1, 77, 768}, [](Builder& ops, In in) { return ops.scale(in[0], 2); })),
              "tokens");
    const Parameters none;
    ProgramOps backend(none);
    expect_contains(error_of([&] {
                        const ProgramValue input = backend.input(0, {8});
                        backend.compiled(inside, {input});
                    }),
                    "gelu");
}

std::vector<kernels::Compilation<kernels::row_kernels::Table>> row_compilations() {
    using namespace kernels::row_kernels;
    return kernels::compilations_here<Table>(ATELIER_EVERY_COMPILATION);
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
            table->weighted_sum(count, 3, rows, weights, to);
            EXPECT_LT(relative_distance(y, x * 1.25 - other * 2), 3e-7);
            const Tensor pixels = normal({7, count}, "pixels"), away = pixels - x;
            Tensor sums = at::empty({2, count});
            table->moments(7, count, pixels.const_data_ptr<float>(), from,
                           sums.mutable_data_ptr<float>());
            EXPECT_LT(relative_distance(sums, at::stack({away.sum(0), (away * away).sum(0)})),
                      1e-6);
        }
    }
}

}  // namespace
}  // namespace atelier::backends
