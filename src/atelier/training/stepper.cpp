#include "atelier/training/stepper.h"

#include <algorithm>
#include <cmath>

namespace atelier::training {

namespace {

/// Means over the parts of an update, weighed by their shares, in the order in which the names came.
class PartMeans {
public:
    void add(const distillation::Metrics& metrics, double share) {
        for (const auto& [name, value] : metrics) {
            auto found = std::ranges::find(sums_, name, &Sum::name);
            if (found == sums_.end()) found = sums_.insert(sums_.end(), {name, 0, 0});
            found->sum += share * value;
            found->shares += share;
        }
    }
    distillation::Metrics means() const {
        distillation::Metrics all;
        for (const Sum& each : sums_) all.emplace_back(each.name, each.sum / each.shares);
        return all;
    }

private:
    struct Sum {
        std::string name;
        double sum, shares;
    };
    std::vector<Sum> sums_;
};

void add_to(std::vector<Tensor>& sums, std::vector<Tensor>& more) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
        // Not in place: autograd may hand out one tensor as the gradient of several parameters.
        if (sums[i].defined() && more[i].defined()) sums[i] = sums[i] + more[i];
        else if (more[i].defined()) sums[i] = more[i];
        more[i] = Tensor();
    }
}

}  // namespace

Stepper::Stepper(distillation::Stage& stage) : stage_(stage), learners_(stage.learners()) {
    for (distillation::Learner& learner : learners_) {
        learner.parameters->require_gradients(true);
        optimizers_.emplace_back(*learner.parameters, learner.optimization, stage.steps() * learner.updates + learner.warmup_updates);
        scales_.emplace_back(learner.optimization.loss_scale);
    }
}

std::map<std::string, double*> Stepper::scalars() {
    std::map<std::string, double*> all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        for (const auto& [name, number] : scales_[i].numbers()) all["loss_scale/" + learners_[i].name + "/" + name] = number;
    }
    return all;
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

std::int64_t Stepper::warmup_updates() const {
    std::int64_t most = 0;
    for (const distillation::Learner& learner : learners_) most = std::max(most, learner.warmup_updates);
    return most;
}

distillation::Metrics Stepper::warm_up(std::int64_t number) {
    distillation::Metrics all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        if (number >= learners_[i].warmup_updates) continue;
        // Steps after the last have random streams that no other update draws from.
        const std::int64_t step = stage_.steps() + number / learners_[i].updates;
        const distillation::Metrics metrics = update(i, step, number % learners_[i].updates);
        all.insert(all.end(), metrics.begin(), metrics.end());
    }
    return all;
}

double Stepper::gradients_of(std::size_t i, std::int64_t step, std::int64_t turn, std::vector<Tensor>& gradients, distillation::Metrics& metrics) {
    PartMeans means;
    double value = 0;
    const std::int64_t parts = stage_.parts(i);
    for (std::int64_t part = 0; part < parts; ++part) {
        distillation::Loss loss = stage_.loss(i, step, turn, part);
        const double factor = scales_[i].factor() * loss.share;
        const Tensor scaled = factor == 1.0 ? loss.value : loss.value * factor;
        std::vector<Tensor> found = torch::autograd::grad({scaled}, learners_[i].parameters->list(), {}, std::nullopt, false, /*allow_unused=*/true);
        if (part == 0) gradients = std::move(found);
        else add_to(gradients, found);
        value += loss.share * loss.value.item<double>();
        means.add(loss.metrics, loss.share);
    }
    metrics = means.means();
    return value;
}

distillation::Metrics Stepper::update(std::size_t i, std::int64_t step, std::int64_t turn) {
    std::vector<Tensor> gradients;
    distillation::Metrics metrics;
    const double value = gradients_of(i, step, turn, gradients, metrics);
    // Gradients can be finite where the loss is not; they say nothing then.
    if (!std::isfinite(value)) throw NotFinite(fmt::format("the loss of {} became {} at step {}", learners_[i].name, value, step));
    LossScale& scale = scales_[i];
    const double norm = optimizers_[i].update(std::move(gradients), scale.factor());
    if (!scale.note(std::isfinite(norm))) {
        throw NotFinite(fmt::format("the gradient of {} became {} at step {}", learners_[i].name, norm, step));
    }
    metrics.emplace_back(learners_[i].name + "_gradient", norm);
    if (scale.active()) {
        metrics.emplace_back(learners_[i].name + "_loss_scale", scale.factor());
        metrics.emplace_back(learners_[i].name + "_skipped", scale.skipped());
    }
    return metrics;
}

}  // namespace atelier::training
