#pragma once

#include <limits>
#include <string>
#include <vector>

#include "atelier/parallel/ranks.h"

namespace atelier::parallel {

/// How the gradients of micro-batches become one.
enum class Reduction {
    exact,    // in whole numbers: the same bits for any number of ranks
    floating  // in float32: quicker, and rounded in an order that depends on the number of ranks
};

/// Sums the gradients of an update's micro-batches, over this process and over ranks.
///
/// Micro-batch m belongs to rank m mod W. In the exact form, gradients are rounded to whole numbers
/// of a power of two for each tensor and summed as int64, so that no order and no grouping changes
/// the result. The unit follows from the first micro-batch in which the tensor's gradient is not
/// zero, with room for others that are 2^14 times as large; where that is not enough, the update's
/// micro-batches are computed once more. With n micro-batches the largest number of the first has
/// 48 - log2(n) bits, where a float32 has 24. A single micro-batch is not rounded at all.
class GradientSum {
public:
    /// Of `micro_batches` gradients for `parameters`, which fix the shapes.
    GradientSum(Ranks& ranks, Reduction reduction, std::vector<Tensor> parameters,
                std::int64_t micro_batches);

    /// Adds the gradients of this rank's micro-batch in the current round of W micro-batches;
    /// undefined ones count as zeros. A rank that has none left in the last round passes none.
    /// An operation of all ranks (see Ranks).
    void add(std::vector<Tensor> gradients);

    /// What complete() needs to know of this rank.
    std::string report() const;

    /// Completes the sum from the reports of all ranks, in their order. False: a unit was too
    /// small, and all micro-batches are to be added once more. An operation of all ranks.
    bool complete(const std::vector<std::string>& reports);

    /// Whether every number of every gradient was finite; only then is there a sum.
    bool finite() const { return finite_; }
    /// The sums, in the parameters' shapes and layouts. Empties this.
    std::vector<Tensor> take();

private:
    void add_exactly(const std::vector<Tensor>& gradients);
    void choose_units(const std::vector<double>& largest);
    bool complete_exactly(const std::vector<std::string>& reports);
    Tensor joined();
    void split(const Tensor& whole);

    Ranks& ranks_;
    Reduction reduction_;
    std::vector<Tensor> parameters_;
    std::int64_t micro_batches_;
    int capacity_;                 // bits that a micro-batch's whole numbers may take
    std::vector<int> units_;       // of each tensor, as exponents of two
    std::vector<double> largest_;  // of each tensor, over this rank's micro-batches; infinity where
                                   // a number was not finite
    Tensor whole_;                 // int64, all tensors one after the other
    std::vector<Tensor> sums_;
    bool finite_ = true, again_ = false;
};

}  // namespace atelier::parallel
