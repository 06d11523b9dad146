#pragma once

#include "atelier/core/error.h"
#include "atelier/training/loss_scale.h"
#include "atelier/training/optimizer.h"

namespace atelier::training {

/// A non-finite loss or gradient; the learner it belongs to has not moved.
class NotFinite : public core::Error {
    using core::Error::Error;
};

/// Takes the steps of a stage: every learner in its turn, as often as it asks, in as many parts as it asks, by an optimiser of its own.
class Stepper {
public:
    /// `stage` must outlive this.
    explicit Stepper(distillation::Stage& stage);

    /// One whole step; a function of the parameters, the optimisers' state and its number. Throws NotFinite.
    distillation::Metrics step(std::int64_t number);

    /// Updates that some learners take before the first step; 0 where none does.
    std::int64_t warmup_updates() const;
    /// Number `number` of them, of every learner that takes so many. Throws NotFinite.
    distillation::Metrics warm_up(std::int64_t number);

    const std::vector<distillation::Learner>& learners() const { return learners_; }
    /// In the order of the learners.
    std::vector<Optimizer>& optimizers() { return optimizers_; }
    const std::vector<Optimizer>& optimizers() const { return optimizers_; }
    /// Numbers that a checkpoint must hold beside the optimisers' states.
    std::map<std::string, double*> scalars();

private:
    distillation::Metrics update(std::size_t learner, std::int64_t step, std::int64_t turn);
    /// Of all parts of an update, scaled; `metrics` get the parts' means, and the update's loss is returned.
    double gradients_of(std::size_t learner, std::int64_t step, std::int64_t turn, std::vector<Tensor>& gradients, distillation::Metrics& metrics);

    distillation::Stage& stage_;
    std::vector<distillation::Learner> learners_;
    std::vector<Optimizer> optimizers_;
    std::vector<LossScale> scales_;
};

}  // namespace atelier::training
