#pragma once

#include <functional>

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// What the numbers that samples are labelled with stand for: classes, or texts of a list.
class ConditionTable {
public:
    /// One-hot labels of `count` classes; of none, conditions are empty.
    static ConditionTable classes(std::int64_t count);
    /// Row i of `rows` [M,...] float32 stands for i, `none` [...] for no condition.
    static ConditionTable embeddings(Tensor rows, Tensor none);
    /// The same with token ids, `rows` [M,T] and `none` [T] int64: for a network that learns to read them.
    static ConditionTable texts(Tensor rows, Tensor none);

    /// `count` conditions whose labels `rows` gives, [n,...] float32, and `none` [...] for no condition.
    static ConditionTable stored(std::int64_t count, std::function<Tensor(std::span<const std::int64_t> numbers)> rows, Tensor none);

    std::int64_t size() const { return size_; }
    /// Of some samples; -1 is no condition, as classifier-free guidance has it (all zeros among classes). Throws core::Error on a number out of range.
    Condition of(std::span<const std::int64_t> numbers, at::Device device = at::kCPU) const;

private:
    Tensor stored_rows(std::span<const std::int64_t> numbers) const;

    std::int64_t size_ = 0;
    Tensor rows_;          // [M+1,...], the last row is that of none; undefined for classes
    bool are_ids_ = false;
    std::function<Tensor(std::span<const std::int64_t>)> stored_;  // instead of rows, which is then that of none alone
};

}  // namespace atelier::diffusion
