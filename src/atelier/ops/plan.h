#pragma once

#include <functional>
#include <string>
#include <vector>

#include "atelier/ops/crew.h"
#include "atelier/ops/thread_room.h"

namespace atelier::ops {

/// A network as a list of steps over one piece of memory, in which every step's result has its place before the network first runs: nothing is allocated, looked up or dispatched in between. Results are float32, for any number of samples. Torch-free.
class Plan {
public:
    /// A result's place: `each` numbers a sample, or `fixed` ones whatever the samples.
    struct Place {
        std::int64_t each = 0, fixed = 0;
        std::int64_t each_before = 0, fixed_before = 0;  // where it begins
        std::size_t from = 0, until = 0;                 // the steps that write and last read it
    };
    using Slot = std::size_t;

    /// What a thread knows of the run that it takes part in.
    struct Run {
        const Plan& plan;
        float* room;
        std::int64_t samples;
        const float* const* inputs;  // what PlanOps::input names
        const std::int32_t* rows;    // [samples] of the tables
        float* output;
        std::int64_t thread, threads;
        Barrier& barrier;
        Scratch& scratch;  // this thread's

        float* at(Slot slot) const {
            const Place& place = plan.places_[slot];
            return place.fixed > 0 ? room + plan.each_ * samples + place.fixed_before : room + place.each_before * samples;
        }

        struct Share {
            std::int64_t begin, end;
        };
        /// This thread's part of `count` things.
        Share share(std::int64_t count) const { return {thread * count / threads, (thread + 1) * count / threads}; }

        /// Calls task(i) for this thread's part of 0 to count-1.
        template <class Task>
        void each(std::int64_t count, const Task& task) const {
            const Share mine = share(count);
            for (std::int64_t i = mine.begin; i < mine.end; ++i) task(i);
        }

        /// All threads have come here, and see what was written before.

        void wait() const { barrier.wait(); }
    };
    using Step = std::function<void(const Run&)>;

    /// A place for `each` numbers a sample, or for `fixed` ones, that the next step writes.
    Slot place(std::int64_t each, std::int64_t fixed = 0);

    /// The next step: all threads call it at once, and none calls the next one before all have returned. It reads `reads` and writes the places made since the last step.
    void step(std::vector<Slot> reads, Step step);

    /// A place that is read when the run is over.
    void keep(Slot slot);

    /// Lays the places out. No step is added after.
    void finish();

    /// Numbers that `samples` samples need room for.
    std::size_t room(std::int64_t samples) const { return static_cast<std::size_t>(each_ * samples + fixed_); }

    /// Runs all steps of `run.plan`, as one of the run's threads, all of which do so at once.
    static void run(const Run& run);

private:
    std::vector<Place> places_;
    std::vector<Step> steps_;
    std::int64_t each_ = 0, fixed_ = 0;
};

}  // namespace atelier::ops
