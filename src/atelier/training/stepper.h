#pragma once

#include "atelier/core/error.h"
#include "atelier/training/loss_scale.h"
#include "atelier/training/optimizer.h"

namespace atelier::training {

/// A non-finite loss or gradient; the learner it belongs to has not moved.
class NotFinite : public core::Error {
    using core::Error::Error;
};

/// Performs the steps of a stage: updates every learner in order, with its number of inner steps
/// and micro-batches and its own optimiser.
class Stepper {
public:
    /// `stage` must outlive this.
    explicit Stepper(distillation::Stage& stage);

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

private:
    distillation::Metrics update(std::size_t learner, std::int64_t step, std::int64_t inner_step);
    /// Sums the scaled gradients over the micro-batches of an update and averages their metrics;
    /// returns the update's loss.
    double gradients_of(std::size_t learner, std::int64_t step, std::int64_t inner_step,
                        std::vector<Tensor>& gradients, distillation::Metrics& metrics);

    distillation::Stage& stage_;
    std::vector<distillation::Learner> learners_;
    std::vector<Optimizer> optimizers_;
    std::vector<LossScale> scales_;
};

}  // namespace atelier::training
