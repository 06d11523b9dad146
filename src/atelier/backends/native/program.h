#pragma once

#include <functional>
#include <string>
#include <vector>

#include "atelier/kernels/thread_pool.h"
#include "atelier/kernels/workspace.h"

namespace atelier::backends {

/// A network compiled to a list of steps over one block of memory, in which every result has a
/// fixed buffer before the network first runs: nothing is allocated, looked up or dispatched in
/// between. Results are float32, for any number of samples. Torch-free.
class Program {
public:
    /// The buffer of a result and its lifetime: `per_sample` floats per sample, or `fixed` floats
    /// for any number of samples.
    struct Buffer {
        std::int64_t per_sample = 0, fixed = 0;
        std::int64_t per_sample_offset = 0, fixed_offset = 0;  // where it begins
        std::size_t first_step = 0, last_step = 0;             // that write and last read it
    };
    using Slot = std::size_t;

    /// One thread's view of a run.
    struct Run {
        const Program& program;
        float* memory;
        std::int64_t samples;
        const float* const* inputs;  // in the order of ProgramOps::input's indices
        const std::int32_t* rows;    // [samples]: the row of each constant that a sample takes
        float* output;
        std::int64_t thread, threads;
        kernels::Barrier& barrier;
        kernels::Workspace& workspace;  // this thread's

        float* at(Slot slot) const {
            const Buffer& buffer = program.buffers_[slot];
            return buffer.fixed > 0 ? memory + program.per_sample_ * samples + buffer.fixed_offset
                                    : memory + buffer.per_sample_offset * samples;
        }

        struct Slice {
            std::int64_t begin, end;
        };
        /// This thread's part of `count` items.
        Slice slice(std::int64_t count) const {
            return {thread * count / threads, (thread + 1) * count / threads};
        }

        /// Calls task(i) for this thread's part of 0 to count-1.
        template <class Task>
        void for_each(std::int64_t count, const Task& task) const {
            const Slice part = slice(count);
            for (std::int64_t i = part.begin; i < part.end; ++i) task(i);
        }

        /// Waits for all threads; writes made before it are visible to all of them after it.

        void wait() const { barrier.wait(); }
    };
    using Step = std::function<void(const Run&)>;

    /// Allocates a buffer of `per_sample` floats per sample, or of `fixed` ones, which the next
    /// step writes.
    Slot allocate(std::int64_t per_sample, std::int64_t fixed = 0);

    /// Appends a step: all threads call it concurrently, and none calls the next one before all
    /// have returned. It reads `reads` and writes the buffers allocated since the last step.
    void step(std::vector<Slot> reads, Step step);

    /// Keeps a buffer alive until the run is over.
    void retain(Slot slot);

    /// Assigns the buffers' offsets. No step may be added afterwards.
    void finish();

    /// Floats of memory that `samples` samples need.
    std::size_t memory_size(std::int64_t samples) const {
        return static_cast<std::size_t>(per_sample_ * samples + fixed_);
    }

    /// Runs all steps of `run.program` as one of the run's threads; all threads must call it
    /// concurrently.
    static void run(const Run& run);

private:
    std::vector<Buffer> buffers_;
    std::vector<Step> steps_;
    std::int64_t per_sample_ = 0, fixed_ = 0;
};

}  // namespace atelier::backends
