#pragma once

#include "atelier/core/error.h"
#include "atelier/parallel/gradient_sum.h"
#include "atelier/training/loss_scale.h"
#include "atelier/training/optimizer.h"

namespace atelier::training {

/// A non-finite loss or gradient; the learner it belongs to has not moved.
class NotFinite : public core::Error {
    using core::Error::Error;
};

/// Performs the steps of a stage: updates every learner in order, with its number of inner steps
/// and micro-batches and its own optimiser. Where several ranks share a stage, each computes every
/// W-th micro-batch, and all make the same updates.
class Stepper {
public:
    /// `stage` and `ranks` must outlive this.
    explicit Stepper(distillation::Stage& stage,
                     parallel::Reduction reduction = parallel::Reduction::exact,
                     parallel::Ranks& ranks = parallel::Ranks::alone());

    /// Performs step `number`, a function of the parameters, the optimisers' state and `number`.
    /// Throws NotFinite.
    distillation::Metrics step(std::int64_t number);

    /// The largest number of warm-up updates of any learner.
    std::int64_t warmup_updates() const;
    /// Performs warm-up update `number` of every learner that has so many. Throws NotFinite.
    distillation::Metrics warm_up(std::int64_t number);

    const std::vector<distillation::Learner>& learners() const { return learners_; }
    /// In the order of the learners.
    std::vector<Optimizer>& optimizers() { return optimizers_; }
    const std::vector<Optimizer>& optimizers() const { return optimizers_; }
    /// Scalars that a checkpoint must hold in addition to the optimisers' states.
    std::map<std::string, double*> scalars();

    /// Whether this process has been asked to stop, or had any of the ranks at the end of the last
    /// update: the same on all of them.
    bool stop_requested() const;

private:
    /// What a micro-batch found beside gradients.
    struct Part {
        std::int64_t micro_batch = 0;
        double weight = 1, value = 0;
        distillation::Metrics metrics;
    };
    distillation::Metrics update(std::size_t learner, std::int64_t step, std::int64_t inner_step);
    /// Sums the scaled gradients over the micro-batches of an update, on all ranks; returns what
    /// its micro-batches found, in order. No gradients where some are not finite.
    std::vector<Part> gradients_of(std::size_t learner, std::int64_t step, std::int64_t inner_step,
                                   std::vector<Tensor>& gradients);
    Part part_of(std::size_t learner, std::int64_t step, std::int64_t inner_step,
                 std::int64_t micro_batch, std::vector<Tensor>& gradients);
    static std::string bytes_of(const std::vector<Part>& parts);
    static std::vector<Part> parts_in(std::string_view bytes);

    distillation::Stage& stage_;
    parallel::Reduction reduction_;
    parallel::Ranks& ranks_;
    bool any_stops_ = false;
    std::vector<distillation::Learner> learners_;
    std::vector<Optimizer> optimizers_;
    std::vector<LossScale> scales_;
};

}  // namespace atelier::training
