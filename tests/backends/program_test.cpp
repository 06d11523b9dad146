#include "atelier/backends/native/program.h"

#include "atelier/backends/native/program_ops.h"
#include "backends/tensors.h"

namespace atelier::backends {
namespace {

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

}  // namespace
}  // namespace atelier::backends
