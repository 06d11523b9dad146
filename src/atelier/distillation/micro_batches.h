#pragma once

#include <optional>

#include "atelier/distillation/stage.h"

namespace atelier::distillation {

/// The number of micro-batches of at most `size` samples (0: the whole batch) in a batch.
inline std::int64_t micro_batch_count(std::int64_t batch, std::int64_t size) {
    return size <= 0 || size >= batch ? 1 : (batch + size - 1) / size;
}

/// The rows of a batch that one micro-batch of an update computes.
struct MicroBatch {
    std::int64_t first = 0, count = 0;
    double weight = 1.0;  // fraction of the batch

    Tensor of(const Tensor& whole) const { return whole.narrow(0, first, count); }
    std::vector<std::int64_t> of(const std::vector<std::int64_t>& whole) const {
        return whole.empty() ? whole
                             : std::vector<std::int64_t>(whole.begin() + first,
                                                         whole.begin() + first + count);
    }
};

/// Micro-batch number `index`.
inline MicroBatch micro_batch_of(std::int64_t batch, std::int64_t size, std::int64_t index) {
    if (micro_batch_count(batch, size) == 1) return {0, batch, 1.0};
    const std::int64_t first = index * size, count = std::min(size, batch - first);
    return {first, count, static_cast<double>(count) / static_cast<double>(batch)};
}

/// What an update draws for its whole batch, kept while its micro-batches are computed, so that
/// they use the same values as an undivided batch, and as the micro-batches that other processes
/// compute.
template <class Draws>
class UpdateDraws {
public:
    /// The draws of an update: those of the last call if it is the same update, else `draw()`.
    template <class Draw>
    Draws& of(std::int64_t step, std::int64_t inner_step, const Draw& draw) {
        if (!drawn_ || step != step_ || inner_step != inner_step_) drawn_ = draw();
        step_ = step, inner_step_ = inner_step;
        return *drawn_;
    }
    std::optional<Draws>& last() { return drawn_; }

private:
    std::int64_t step_ = 0, inner_step_ = 0;
    std::optional<Draws> drawn_;
};

}  // namespace atelier::distillation
