#pragma once

#include <any>
#include <map>
#include <string>
#include <tuple>

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

/// Random draws of an update for its whole batch, kept while its micro-batches are computed, so
/// that they use the same values as an undivided batch.
class BatchDraws {
public:
    /// Discards the draws of any other update.
    void begin(std::size_t learner, std::int64_t step, std::int64_t inner_step) {
        const Update update{learner, step, inner_step};
        if (update != update_) drawn_.clear();
        update_ = update;
    }

    /// The value of `draw()`, which is called once per update and name.
    template <class Draw>
    const auto& once(const std::string& name, const Draw& draw) {
        using Result = std::invoke_result_t<const Draw&>;
        std::any& value = drawn_[name];
        if (!value.has_value()) value = draw();
        return *std::any_cast<Result>(&value);
    }

private:
    using Update = std::tuple<std::size_t, std::int64_t, std::int64_t>;
    Update update_{};
    std::map<std::string, std::any> drawn_;
};

}  // namespace atelier::distillation
