#pragma once

#include <any>
#include <map>
#include <string>
#include <tuple>

#include "atelier/distillation/stage.h"

namespace atelier::distillation {

/// Parts of at most `micro_batch` samples (0: all at once) that a batch falls into.
inline std::int64_t parts_of(std::int64_t batch, std::int64_t micro_batch) {
    return micro_batch <= 0 || micro_batch >= batch ? 1 : (batch + micro_batch - 1) / micro_batch;
}

/// The samples of a batch that one part of an update computes.
struct Rows {
    std::int64_t first = 0, count = 0;
    double share = 1.0;  // of the batch

    Tensor of(const Tensor& whole) const { return whole.narrow(0, first, count); }
    std::vector<std::int64_t> of(const std::vector<std::int64_t>& whole) const {
        return whole.empty() ? whole : std::vector<std::int64_t>(whole.begin() + first, whole.begin() + first + count);
    }
};

inline Rows rows_of(std::int64_t batch, std::int64_t micro_batch, std::int64_t part) {
    if (parts_of(batch, micro_batch) == 1) return {0, batch, 1.0};
    const std::int64_t first = part * micro_batch, count = std::min(micro_batch, batch - first);
    return {first, count, static_cast<double>(count) / static_cast<double>(batch)};
}

/// What an update draws for its whole batch, kept while its parts are computed, so that they share the numbers of an undivided batch.
class Draws {
public:
    /// Forgets what another update drew.
    void begin(std::size_t learner, std::int64_t step, std::int64_t turn) {
        const Update update{learner, step, turn};
        if (update != update_) drawn_.clear();
        update_ = update;
    }

    template <class Draw>
    const auto& once(const std::string& name, const Draw& draw) {
        using Result = std::invoke_result_t<const Draw&>;
        std::any& place = drawn_[name];
        if (!place.has_value()) place = draw();
        return *std::any_cast<Result>(&place);
    }

private:
    using Update = std::tuple<std::size_t, std::int64_t, std::int64_t>;
    Update update_{};
    std::map<std::string, std::any> drawn_;
};

}  // namespace atelier::distillation
