#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "atelier/parallel/ranks.h"

namespace atelier::parallel {

/// The rank that keeps each of some tensors: the largest first, each to the rank with the fewest
/// elements so far. A tensor is never divided, so that its owner computes what one process would.
std::vector<int> owners_of(const std::vector<std::int64_t>& sizes, int ranks);

/// The fraction of all elements that the rank which keeps most has; 1 where there are none.
double largest_share(const std::vector<std::int64_t>& sizes, int ranks);

/// What each rank keeps of a list of float32 tensors that all ranks know. Of a process that is
/// alone: everything.
class Shares {
public:
    Shares() = default;
    Shares(Ranks& ranks, const std::vector<std::int64_t>& sizes);

    /// Whether other ranks keep some.
    bool divided() const { return ranks_ != nullptr; }
    /// Whether this rank keeps tensor `index`.
    bool mine(std::size_t index) const { return !divided() || owners_[index] == ranks_->rank(); }

    /// Operation: gives every rank's `tensors` the values that their owners have.
    void spread(const std::vector<Tensor>& tensors) const;
    /// Operation: the values of each tensor on its owner, `mine(index)`, come to rank 0, and there
    /// to `take(index, values)` as [elements], in memory order; rank 0's own do not.
    void to_leader(const std::function<Tensor(std::size_t)>& mine,
                   const std::function<void(std::size_t, const Tensor&)>& take) const;

private:
    /// The tensors of each rank, in groups that are sent together.
    struct Group {
        int owner = 0;
        std::vector<std::size_t> indices;
        std::int64_t elements = 0;
    };
    std::vector<Group> groups() const;

    Ranks* ranks_ = nullptr;
    std::vector<int> owners_;
    std::vector<std::int64_t> sizes_;
};

}  // namespace atelier::parallel
