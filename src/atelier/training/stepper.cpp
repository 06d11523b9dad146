#include "atelier/training/stepper.h"

#include <cmath>

namespace atelier::training {

Stepper::Stepper(distillation::Stage& stage) : stage_(stage), learners_(stage.learners()) {
    for (distillation::Learner& learner : learners_) {
        learner.parameters->require_gradients(true);
        optimizers_.emplace_back(*learner.parameters, learner.optimization, stage.steps() * learner.updates);
    }
}

distillation::Metrics Stepper::step(std::int64_t number) {
    distillation::Metrics all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        for (std::int64_t turn = 0; turn < learners_[i].updates; ++turn) {
            const distillation::Metrics metrics = update(i, number, turn);
            if (turn + 1 == learners_[i].updates) all.insert(all.end(), metrics.begin(), metrics.end());
        }
    }
    return all;
}

distillation::Metrics Stepper::update(std::size_t i, std::int64_t step, std::int64_t turn) {
    distillation::Loss loss = stage_.loss(i, step, turn);
    const std::vector<Tensor> gradients = torch::autograd::grad({loss.value}, learners_[i].parameters->list(), {}, std::nullopt,
                                                                false, /*allow_unused=*/true);
    const double norm = optimizers_[i].update(gradients);
    const double value = loss.value.item<double>();
    if (!std::isfinite(value) || !std::isfinite(norm)) {
        throw NotFinite(fmt::format("the {} of {} became {} at step {}", std::isfinite(value) ? "gradient" : "loss", learners_[i].name,
                                    std::isfinite(value) ? norm : value, step));
    }
    loss.metrics.emplace_back(learners_[i].name + "_gradient", norm);
    return loss.metrics;
}

}  // namespace atelier::training
