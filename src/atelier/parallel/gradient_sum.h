#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "atelier/parallel/buckets.h"
#include "atelier/parallel/ranks.h"
#include "atelier/parallel/reduction.h"

namespace atelier::parallel {

/// Sums the gradients of an update's micro-batches, over this process and over ranks.
///
/// Micro-batch m belongs to rank m mod W. In the exact form, gradients are rounded to whole numbers
/// of a power of two for each tensor and summed as int64, so that no order and no grouping changes
/// the result. The unit follows from the first micro-batch in which the tensor's gradient is not
/// zero, with room for others that are 2^14 times as large; where that is not enough, the update's
/// micro-batches are computed once more. With n micro-batches the largest number of the first has
/// 48 - log2(n) bits, where a float32 has 24. A single micro-batch is not rounded at all.
///
/// With buckets, the last round's gradients may come one by one (begin, ready, finish): a bucket is
/// summed over ranks, by a thread of its own, as soon as it is complete, while others are still
/// computed. The result has the same bits where the sum is exact or of two ranks; a sum of floats
/// over more adds them in an order that depends on the bucket.
///
/// On an accelerator nothing is read back before report(), which reads once, except by ranks in the
/// round that gives the units.
class GradientSum {
public:
    /// Of `micro_batches` gradients for `parameters`, which fix the shapes.
    GradientSum(Ranks& ranks, Reduction reduction, std::vector<Tensor> parameters,
                std::int64_t micro_batches, const Buckets* buckets = nullptr);
    ~GradientSum();
    GradientSum(const GradientSum&) = delete;
    GradientSum& operator=(const GradientSum&) = delete;

    /// Adds the gradients of this rank's micro-batch in the current round of W micro-batches;
    /// undefined ones count as zeros. A rank that has none left in the last round passes none.
    /// An operation of all ranks (see Ranks).
    void add(std::vector<Tensor> gradients);

    /// In place of add() in the last round: begins it. Until finish() this rank takes part in
    /// operations of all ranks, and must call none itself.
    void begin();
    /// The gradient of tensor `index`, complete; on any thread, once for each tensor.
    void ready(std::size_t index, Tensor gradient);
    /// What was not ready() before, in the parameters' order; may be empty. Waits for all sums.
    void finish(std::vector<Tensor> rest);
    /// The buckets that were complete before finish().
    std::int64_t early_buckets() const { return early_; }

    /// What complete() needs to know of this rank.
    std::string report();

    /// Completes the sum from the reports of all ranks, in their order. False: a unit was too
    /// small, and all micro-batches are to be added once more. An operation of all ranks.
    bool complete(const std::vector<std::string>& reports);

    /// Whether every number of every gradient was finite; only then is there a sum.
    bool finite() const { return finite_; }
    /// The sums, in the parameters' shapes and layouts. Empties this.
    std::vector<Tensor> take();

private:
    /// A range of places, and what the largest numbers of its tensors' gradients are.
    struct Range {
        std::int64_t first = 0, end = 0;
        std::int64_t count() const { return end - first; }
    };
    struct Largest {
        std::vector<double> host;  // on CPUs
        Tensor device;             // elsewhere: [count], float64
    };
    class Sender;

    bool exact() const { return micro_batches_ > 1 && reduction_ == Reduction::exact; }
    bool on_cpu() const { return parameters_.front().is_cpu(); }
    std::size_t tensor_at(std::int64_t place) const {
        return static_cast<std::size_t>(order_[static_cast<std::size_t>(place)]);
    }
    Tensor slice(std::int64_t place) const;
    Tensor slice(const Range& range) const;
    void allocate();

    void add_floats(std::size_t index, Tensor gradient);
    void add_exactly(const Range& range);
    Largest largest_of(const Range& range);
    std::vector<double> on_host(const Largest& largest) const;
    bool units_known(const Range& range) const;
    void choose_units(const Range& range, const std::vector<double>& largest);
    void choose_units_on_device(const Range& range, const Tensor& largest);
    void upload_units(const Range& range);
    void add_rounded(const Range& range, const Largest& largest);
    bool knows_units(std::size_t bucket) const;
    void sum_bucket(std::size_t bucket);
    bool complete_exactly(const std::vector<std::string>& reports);
    void take_apart();

    Ranks& ranks_;
    const Reduction reduction_;
    const std::vector<Tensor> parameters_;
    const std::int64_t micro_batches_;
    const int capacity_;                // bits that a micro-batch's whole numbers may take
    std::vector<std::int64_t> order_;   // the tensors' places
    std::vector<std::int64_t> begins_;  // of the tensor at each place, among all elements
    std::vector<Range> buckets_;
    // By place, on the host; where units are chosen on a device, they are read by report().
    std::vector<int> units_;       // of each tensor, as exponents of two
    std::vector<double> largest_;  // of each tensor, over this rank's micro-batches; infinity where
                                   // a number was not finite
    Tensor device_units_, device_largest_;  // the same on an accelerator: int64, float64
    std::vector<Tensor> found_;             // this micro-batch's gradients, by tensor
    Tensor whole_;  // all tensors, by place: int64, or float32 where that is summed or sent
    std::vector<Tensor> sums_;  // by tensor
    bool finite_ = true, again_ = false;
    // While buckets are sent.
    std::vector<std::int64_t> places_;  // by tensor
    std::vector<bool> came_;            // by tensor
    bool finishing_ = false, sent_ = false;
    std::int64_t early_ = 0;
    std::unique_ptr<Sender> sender_;
};

}  // namespace atelier::parallel
