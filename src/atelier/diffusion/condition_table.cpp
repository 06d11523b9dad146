#include "atelier/diffusion/condition_table.h"

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

ConditionTable ConditionTable::stored(std::int64_t count, std::function<Tensor(std::span<const std::int64_t>)> rows, Tensor none) {
    ConditionTable table;
    table.size_ = count;
    table.rows_ = none.unsqueeze(0);
    table.stored_ = std::move(rows);
    return table;
}

/// Rows of what is stored, and that of no condition between them.
Tensor ConditionTable::stored_rows(std::span<const std::int64_t> numbers) const {
    std::vector<std::int64_t> known;
    for (const std::int64_t number : numbers) {
        if (number >= 0) known.push_back(number);
    }
    const Tensor found = known.empty() ? Tensor() : stored_(known);
    std::vector<Tensor> rows;
    std::int64_t next = 0;
    for (const std::int64_t number : numbers) rows.push_back(number < 0 ? rows_[0] : found[next++]);
    return at::stack(rows);
}

Condition ConditionTable::of(std::span<const std::int64_t> numbers, at::Device device) const {
    if (size_ == 0) return {};
    Tensor places = at::empty({static_cast<std::int64_t>(numbers.size())}, at::kLong);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        if (numbers[i] < -1 || numbers[i] >= size_) core::fail("condition {} is out of range; there are 0 to {}", numbers[i], size_ - 1);
        places.mutable_data_ptr<std::int64_t>()[i] = numbers[i] < 0 ? size_ : numbers[i];
    }
    if (stored_) return {stored_rows(numbers).to(device)};
    if (!rows_.defined()) return {at::one_hot(places, size_ + 1).narrow(1, 0, size_).to(at::kFloat).to(device)};
    const Tensor chosen = rows_.index_select(0, places).to(device);
    if (are_ids_) return {.labels = {}, .ids = chosen};
    return {chosen};
}

}  // namespace atelier::diffusion
