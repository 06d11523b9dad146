#include "atelier/diffusion/condition_table.h"

#include "atelier/backends/torch/transfer.h"
#include "atelier/core/error.h"

namespace atelier::diffusion {

ConditionTable ConditionTable::classes(std::int64_t count) {
    ConditionTable table;
    table.size_ = count;
    return table;
}

ConditionTable ConditionTable::embeddings(Tensor rows, Tensor none) {
    ConditionTable table;
    table.size_ = rows.size(0);
    table.rows_ = at::cat({rows, none.unsqueeze(0)});
    return table;
}

ConditionTable ConditionTable::texts(Tensor rows, Tensor none) {
    ConditionTable table = embeddings(std::move(rows), std::move(none));
    table.are_ids_ = true;
    return table;
}

ConditionTable ConditionTable::stored(std::int64_t count,
                                      std::function<Tensor(std::span<const std::int64_t>)> rows,
                                      Tensor none) {
    ConditionTable table;
    table.size_ = count;
    table.rows_ = none.unsqueeze(0);
    table.stored_ = std::move(rows);
    return table;
}

/// The stored rows of `labels`, with the row of no condition where a label is negative.
Tensor ConditionTable::stored_rows(std::span<const std::int64_t> labels) const {
    std::vector<std::int64_t> labelled;
    for (const std::int64_t label : labels) {
        if (label >= 0) labelled.push_back(label);
    }
    const Tensor found = labelled.empty() ? Tensor() : stored_(labelled);
    std::vector<Tensor> rows;
    std::int64_t next = 0;
    for (const std::int64_t label : labels) rows.push_back(label < 0 ? rows_[0] : found[next++]);
    return at::stack(rows);
}

Condition ConditionTable::of(std::span<const std::int64_t> labels, at::Device device) const {
    if (size_ == 0) return {};
    Tensor indices = at::empty({static_cast<std::int64_t>(labels.size())}, at::kLong);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] < -1 || labels[i] >= size_)
            core::fail("condition {} is out of range; there are 0 to {}", labels[i], size_ - 1);
        indices.mutable_data_ptr<std::int64_t>()[i] = labels[i] < 0 ? size_ : labels[i];
    }
    if (stored_) return {backends::to_device(stored_rows(labels), device)};
    if (!rows_.defined())
        return {backends::to_device(
            at::one_hot(indices, size_ + 1).narrow(1, 0, size_).to(at::kFloat), device)};
    const Tensor chosen = backends::to_device(rows_.index_select(0, indices), device);
    if (are_ids_) return {.labels = {}, .ids = chosen};
    return {chosen};
}

}  // namespace atelier::diffusion
