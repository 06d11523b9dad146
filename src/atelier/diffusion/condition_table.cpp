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

Condition ConditionTable::of(std::span<const std::int64_t> numbers, at::Device device) const {
    if (size_ == 0) return {};
    Tensor places = at::empty({static_cast<std::int64_t>(numbers.size())}, at::kLong);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        if (numbers[i] < -1 || numbers[i] >= size_) core::fail("condition {} is out of range; there are 0 to {}", numbers[i], size_ - 1);
        places.mutable_data_ptr<std::int64_t>()[i] = numbers[i] < 0 ? size_ : numbers[i];
    }
    if (!rows_.defined()) return {at::one_hot(places, size_ + 1).narrow(1, 0, size_).to(at::kFloat).to(device)};
    const Tensor chosen = rows_.index_select(0, places).to(device);
    if (are_ids_) return {.labels = {}, .ids = chosen};
    return {chosen};
}

}  // namespace atelier::diffusion
