#include "atelier/training/stepper.h"

#include <algorithm>
#include <cmath>

namespace atelier::training {

namespace {

/// Weighted means of metrics over the micro-batches of an update, in order of first appearance.
class MicroBatchMeans {
public:
    void add(const distillation::Metrics& metrics, double weight) {
        for (const auto& [name, value] : metrics) {
            auto found = std::ranges::find(sums_, name, &Sum::name);
            if (found == sums_.end()) found = sums_.insert(sums_.end(), {name, 0, 0});
            found->sum += weight * value;
            found->weights += weight;
        }
    }
    distillation::Metrics means() const {
        distillation::Metrics all;
        for (const Sum& each : sums_) all.emplace_back(each.name, each.sum / each.weights);
        return all;
    }

private:
    struct Sum {
        std::string name;
        double sum, weights;
    };
    std::vector<Sum> sums_;
};

void add_to(std::vector<Tensor>& sums, std::vector<Tensor>& more) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
        // Not in place: autograd may return one tensor as the gradient of several parameters.
        if (sums[i].defined() && more[i].defined()) sums[i] = sums[i] + more[i];
        else if (more[i].defined()) sums[i] = more[i];
        more[i] = Tensor();
    }
}

}  // namespace

Stepper::Stepper(distillation::Stage& stage) : stage_(stage), learners_(stage.learners()) {
    for (distillation::Learner& learner : learners_) {
        learner.parameters->require_gradients(true);
        optimizers_.emplace_back(*learner.parameters, learner.optimization,
                                 stage.steps() * learner.updates + learner.warmup_updates);
        scales_.emplace_back(learner.optimization.loss_scale);
    }
}

std::map<std::string, double*> Stepper::scalars() {
    std::map<std::string, double*> all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        for (const auto& [name, scalar] : scales_[i].scalars())
            all["loss_scale/" + learners_[i].name + "/" + name] = scalar;
    }
    return all;
}

distillation::Metrics Stepper::step(std::int64_t number) {
    distillation::Metrics all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        for (std::int64_t inner_step = 0; inner_step < learners_[i].updates; ++inner_step) {
            const distillation::Metrics metrics = update(i, number, inner_step);
            if (inner_step + 1 == learners_[i].updates)
                all.insert(all.end(), metrics.begin(), metrics.end());
        }
    }
    return all;
}

std::int64_t Stepper::warmup_updates() const {
    std::int64_t largest = 0;
    for (const distillation::Learner& learner : learners_)
        largest = std::max(largest, learner.warmup_updates);
    return largest;
}

distillation::Metrics Stepper::warm_up(std::int64_t number) {
    distillation::Metrics all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        if (number >= learners_[i].warmup_updates) continue;
        // Step numbers beyond the last have random streams that no other update uses.
        const std::int64_t step = stage_.steps() + number / learners_[i].updates;
        const distillation::Metrics metrics = update(i, step, number % learners_[i].updates);
        all.insert(all.end(), metrics.begin(), metrics.end());
    }
    return all;
}

double Stepper::gradients_of(std::size_t i, std::int64_t step, std::int64_t inner_step,
                             std::vector<Tensor>& gradients, distillation::Metrics& metrics) {
    MicroBatchMeans means;
    double value = 0;
    const std::int64_t count = stage_.micro_batches(i);
    for (std::int64_t micro_batch = 0; micro_batch < count; ++micro_batch) {
        distillation::Loss loss = stage_.loss(i, step, inner_step, micro_batch);
        const double factor = scales_[i].factor() * loss.weight;
        const Tensor scaled = factor == 1.0 ? loss.value : loss.value * factor;
        std::vector<Tensor> found =
            torch::autograd::grad({scaled}, learners_[i].parameters->list(), {}, std::nullopt,
                                  false, /*allow_unused=*/true);
        if (micro_batch == 0) gradients = std::move(found);
        else add_to(gradients, found);
        value += loss.weight * loss.value.item<double>();
        means.add(loss.metrics, loss.weight);
    }
    metrics = means.means();
    return value;
}

distillation::Metrics Stepper::update(std::size_t i, std::int64_t step, std::int64_t inner_step) {
    std::vector<Tensor> gradients;
    distillation::Metrics metrics;
    const double value = gradients_of(i, step, inner_step, gradients, metrics);
    stage_.finish_update(i);
    // Gradients can be finite although the loss is not; they are meaningless then.
    if (!std::isfinite(value))
        throw NotFinite(
            fmt::format("the loss of {} became {} at step {}", learners_[i].name, value, step));
    LossScale& scale = scales_[i];
    const double norm = optimizers_[i].update(std::move(gradients), scale.factor());
    if (!scale.update(std::isfinite(norm))) {
        throw NotFinite(
            fmt::format("the gradient of {} became {} at step {}", learners_[i].name, norm, step));
    }
    metrics.emplace_back(learners_[i].name + "_gradient", norm);
    if (scale.active()) {
        metrics.emplace_back(learners_[i].name + "_loss_scale", scale.factor());
        metrics.emplace_back(learners_[i].name + "_skipped", scale.skipped());
    }
    return metrics;
}

}  // namespace atelier::training
