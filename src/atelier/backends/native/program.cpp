#include "atelier/backends/native/program.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace atelier::backends {

namespace {

constexpr std::int64_t cache_line = 16;  // floats per cache line

std::int64_t round_up_to_line(std::int64_t values) {
    return (values + cache_line - 1) / cache_line * cache_line;
}

}  // namespace

Program::Slot Program::allocate(std::int64_t per_sample, std::int64_t fixed) {
    buffers_.push_back({round_up_to_line(per_sample), round_up_to_line(fixed), 0, 0, steps_.size(),
                        steps_.size()});
    return buffers_.size() - 1;
}

void Program::step(std::vector<Slot> reads, Step step) {
    for (const Slot slot : reads)
        buffers_[slot].last_step = std::max(buffers_[slot].last_step, steps_.size());
    steps_.push_back(std::move(step));
}

void Program::retain(Slot slot) {
    buffers_[slot].last_step = std::numeric_limits<std::size_t>::max();
}

/// Places the largest buffers first, each at the lowest offset at which it overlaps no buffer that
/// is alive at the same time. Per-sample and fixed buffers are in separate regions, since only the
/// former grow with the samples.
void Program::finish() {
    const auto lay_out = [&](auto size, auto begin) {
        std::vector<Slot> order(buffers_.size());
        std::iota(order.begin(), order.end(), Slot{0});
        std::ranges::stable_sort(
            order, [&](Slot a, Slot b) { return buffers_[a].*size > buffers_[b].*size; });
        std::vector<Slot> placed;
        std::int64_t total = 0;
        for (const Slot slot : order) {
            Buffer& buffer = buffers_[slot];
            if (buffer.*size == 0) continue;
            std::int64_t at = 0;
            for (const Slot other : placed) {  // by their offsets
                const Buffer& other_buffer = buffers_[other];
                if (other_buffer.first_step > buffer.last_step ||
                    other_buffer.last_step < buffer.first_step ||
                    other_buffer.*begin + other_buffer.*size <= at)
                    continue;
                if (other_buffer.*begin >= at + buffer.*size) break;
                at = other_buffer.*begin + other_buffer.*size;
            }
            buffer.*begin = at;
            total = std::max(total, at + buffer.*size);
            placed.insert(std::ranges::upper_bound(placed, at, {},
                                                   [&](Slot one) { return buffers_[one].*begin; }),
                          slot);
        }
        return total;
    };
    per_sample_ = lay_out(&Buffer::per_sample, &Buffer::per_sample_offset);
    fixed_ = lay_out(&Buffer::fixed, &Buffer::fixed_offset);
}

void Program::run(const Run& run) {
    for (const Step& step : run.program.steps_) {
        step(run);
        run.wait();
    }
}

}  // namespace atelier::backends
