#pragma once

#include <functional>

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// Maps sample labels to conditions: classes, or texts of a list.
class ConditionTable {
public:
    /// One-hot labels of `count` classes; with 0 classes, conditions are empty.
    static ConditionTable classes(std::int64_t count);
    /// Label i maps to row i of `rows` [M,...] float32; no condition maps to `none` [...].
    static ConditionTable embeddings(Tensor rows, Tensor none);
    /// The same with token ids, `rows` [M,T] and `none` [T] int64, for a network with a trainable
    /// text tower.
    static ConditionTable texts(Tensor rows, Tensor none);

    /// `count` conditions whose labels [n,...] float32 are returned by `rows(indices)`; `none`
    /// [...] is no condition.
    static ConditionTable stored(std::int64_t count,
                                 std::function<Tensor(std::span<const std::int64_t> indices)> rows,
                                 Tensor none);

    std::int64_t size() const { return size_; }
    /// The conditions of samples with these labels; -1 is no condition, as in classifier-free
    /// guidance (all zeros for classes). Throws core::Error on a label out of range.
    Condition of(std::span<const std::int64_t> labels, at::Device device = at::kCPU) const;

private:
    Tensor stored_rows(std::span<const std::int64_t> labels) const;

    std::int64_t size_ = 0;
    Tensor rows_;  // [M+1,...], the last row is no condition; undefined for classes
    bool are_ids_ = false;
    std::function<Tensor(std::span<const std::int64_t>)>
        stored_;  // if set, rows_ holds only the row of no condition
};

}  // namespace atelier::diffusion
