#include "atelier/training/stepper.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "atelier/core/signals.h"

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

/// Appends values to bytes that another process reads, and takes them off again.
class Packet {
public:
    explicit Packet(std::string_view bytes = {}) : bytes_(bytes) {}
    template <class Value>
    void add(Value value) {
        bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    void add_text(std::string_view text) {
        add(static_cast<std::uint64_t>(text.size()));
        bytes_ += text;
    }
    template <class Value>
    Value take() {
        Value value{};
        std::memcpy(&value, next(sizeof value), sizeof value);
        return value;
    }
    std::string take_text() {
        const auto size = take<std::uint64_t>();
        return {next(size), size};
    }
    const std::string& bytes() const { return bytes_; }

private:
    const char* next(std::size_t size) {
        if (size > bytes_.size() - at_)
            core::fail("another rank sent too little: do all run the same version of atelier?");
        at_ += size;
        return bytes_.data() + at_ - size;
    }

    std::string bytes_;
    std::size_t at_ = 0;
};

}  // namespace

Stepper::Stepper(distillation::Stage& stage, parallel::Reduction reduction, parallel::Ranks& ranks)
    : stage_(stage), reduction_(reduction), ranks_(ranks), learners_(stage.learners()) {
    if (!ranks_.is_alone()) stage_.agree_by([this](double mine) { return ranks_.broadcast(mine); });
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

bool Stepper::stop_requested() const {
    return ranks_.is_alone() ? core::stop_requested() : any_stops_;
}

std::string Stepper::bytes_of(const std::vector<Part>& parts) {
    Packet packet;
    packet.add(static_cast<std::uint64_t>(parts.size()));
    for (const Part& part : parts) {
        packet.add(part.micro_batch);
        packet.add(part.weight);
        packet.add(part.value);
        packet.add(static_cast<std::uint64_t>(part.metrics.size()));
        for (const auto& [name, value] : part.metrics) {
            packet.add_text(name);
            packet.add(value);
        }
    }
    return packet.bytes();
}

std::vector<Stepper::Part> Stepper::parts_in(std::string_view bytes) {
    Packet packet(bytes);
    std::vector<Part> parts;
    for (auto count = packet.take<std::uint64_t>(); count > 0; --count) {
        Part part{packet.take<std::int64_t>(), packet.take<double>(), packet.take<double>(), {}};
        for (auto metrics = packet.take<std::uint64_t>(); metrics > 0; --metrics) {
            std::string name = packet.take_text();
            part.metrics.emplace_back(std::move(name), packet.take<double>());
        }
        parts.push_back(std::move(part));
    }
    return parts;
}

Stepper::Part Stepper::part_of(std::size_t i, std::int64_t step, std::int64_t inner_step,
                               std::int64_t micro_batch, std::vector<Tensor>& gradients) {
    const distillation::Loss loss = stage_.loss(i, step, inner_step, micro_batch);
    const double factor = scales_[i].factor() * loss.weight;
    const Tensor scaled = factor == 1.0 ? loss.value : loss.value * factor;
    gradients = torch::autograd::grad({scaled}, learners_[i].parameters->list(), {}, std::nullopt,
                                      false, /*allow_unused=*/true);
    return {micro_batch, loss.weight, loss.value.item<double>(), loss.metrics};
}

std::vector<Stepper::Part> Stepper::gradients_of(std::size_t i, std::int64_t step,
                                                 std::int64_t inner_step,
                                                 std::vector<Tensor>& gradients) {
    const std::int64_t count = stage_.micro_batches(i), world = ranks_.world();
    parallel::GradientSum sum(ranks_, reduction_, learners_[i].parameters->list(), count);
    if (ranks_.rank() >= count && stage_.has_value_of_first_micro_batch(i)) ranks_.broadcast(0.0);
    std::vector<std::string> reports;
    std::vector<Part> parts;
    do {
        std::vector<Part> mine;
        for (std::int64_t first = 0; first < count; first += world) {
            std::vector<Tensor> found;
            if (first + ranks_.rank() < count)
                mine.push_back(part_of(i, step, inner_step, first + ranks_.rank(), found));
            sum.add(std::move(found));
        }
        if (ranks_.is_alone()) {
            parts = std::move(mine);
            reports = {sum.report()};
            continue;
        }
        Packet packet;
        packet.add(core::stop_requested());
        packet.add_text(sum.report());
        packet.add_text(bytes_of(mine));
        reports.clear();
        parts.clear();
        any_stops_ = false;
        for (const std::string& bytes : ranks_.gather(packet.bytes())) {
            Packet of_rank(bytes);
            any_stops_ = of_rank.take<bool>() || any_stops_;
            reports.push_back(of_rank.take_text());
            for (Part& part : parts_in(of_rank.take_text())) parts.push_back(std::move(part));
        }
        std::ranges::sort(parts, {}, &Part::micro_batch);
    } while (!sum.complete(reports));
    if (sum.finite()) gradients = sum.take();
    return parts;
}

distillation::Metrics Stepper::update(std::size_t i, std::int64_t step, std::int64_t inner_step) {
    std::vector<Tensor> gradients;
    MicroBatchMeans means;
    double value = 0;
    for (const Part& part : gradients_of(i, step, inner_step, gradients)) {
        value += part.weight * part.value;
        means.add(part.metrics, part.weight);
    }
    distillation::Metrics metrics = means.means();
    stage_.finish_update(i);
    // Gradients can be finite although the loss is not; they are meaningless then.
    if (!std::isfinite(value))
        throw NotFinite(
            fmt::format("the loss of {} became {} at step {}", learners_[i].name, value, step));
    LossScale& scale = scales_[i];
    const double norm = gradients.empty()
                            ? std::numeric_limits<double>::quiet_NaN()
                            : optimizers_[i].update(std::move(gradients), scale.factor());
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
