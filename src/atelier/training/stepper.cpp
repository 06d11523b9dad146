#include "atelier/training/stepper.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>

#include "atelier/core/signals.h"

namespace atelier::training {

namespace {

constexpr std::size_t most_unchecked = 1024;  // updates

/// Adds gradients, of which some may be undefined, in one operation.
void add(std::vector<Tensor>& to, std::vector<Tensor> more) {
    at::NoGradGuard no_gradients;
    std::vector<Tensor> a, b;
    std::vector<std::size_t> indices;
    for (std::size_t i = 0; i < to.size(); ++i) {
        if (!to[i].defined()) to[i] = std::move(more[i]);
        if (!more[i].defined()) continue;
        a.push_back(to[i]);
        b.push_back(std::move(more[i]));
        indices.push_back(i);
    }
    if (a.empty()) return;
    // Not in place: autograd may return one tensor as the gradient of several parameters.
    const std::vector<Tensor> sums = at::_foreach_add(a, b);
    for (std::size_t k = 0; k < indices.size(); ++k) to[indices[k]] = sums[k];
}

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

Stepper::Stepper(distillation::Stage& stage, parallel::Reduction reduction, parallel::Ranks& ranks,
                 bool share_optimizers, std::int64_t bucket_bytes)
    : stage_(stage),
      reduction_(reduction),
      ranks_(ranks),
      learners_(stage.learners()),
      buckets_(learners_.size()),
      bucket_bytes_(bucket_bytes) {
    if (!ranks_.is_alone()) stage_.agree_by([this](double mine) { return ranks_.broadcast(mine); });
    for (distillation::Learner& learner : learners_) {
        learner.parameters->require_gradients(true);
        if (learner.type) learner.parameters->keep_narrow(*learner.type);
        optimizers_.emplace_back(*learner.parameters, learner.optimization,
                                 stage.steps() * learner.updates + learner.warmup_updates,
                                 share_optimizers ? ranks_ : parallel::Ranks::alone());
        scales_.emplace_back(learner.optimization.loss_scale);
        if (!ranks_.is_alone())
            watches_.push_back(std::make_unique<GradientWatch>(*learner.parameters));
    }
}

Stepper::~Stepper() {
    watches_.clear();
    for (const distillation::Learner& learner : learners_) learner.parameters->drop_narrow();
}

std::map<std::string, double*> Stepper::scalars() {
    std::map<std::string, double*> all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        for (const auto& [name, scalar] : scales_[i].scalars())
            all["loss_scale/" + learners_[i].name + "/" + name] = scalar;
    }
    return all;
}

StepMetrics Stepper::step(std::int64_t number) {
    StepMetrics all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        const std::int64_t updates = learners_[i].updates;
        for (std::int64_t inner_step = i == 0 ? begun_ : 0; inner_step < updates; ++inner_step) {
            StepMetrics metrics = update(i, number, inner_step);
            if (inner_step + 1 == updates) {
                all.append(std::move(metrics));
            } else if (i == 0 && stop_requested()) {
                begun_ = inner_step + 1;
                return all;
            }
        }
    }
    begun_ = 0;
    return all;
}

std::int64_t Stepper::warmup_updates() const {
    std::int64_t largest = 0;
    for (const distillation::Learner& learner : learners_)
        largest = std::max(largest, learner.warmup_updates);
    return largest;
}

StepMetrics Stepper::warm_up(std::int64_t number) {
    StepMetrics all;
    for (std::size_t i = 0; i < learners_.size(); ++i) {
        if (number >= learners_[i].warmup_updates) continue;
        // Step numbers beyond the last have random streams that no other update uses.
        const std::int64_t step = stage_.steps() + number / learners_[i].updates;
        all.append(update(i, step, number % learners_[i].updates));
    }
    return all;
}

bool Stepper::stop_requested() const {
    return ranks_.is_alone() ? core::stop_requested() : any_stops_;
}

/// Reads what the parts hold.
void Stepper::read(std::vector<Part>& parts) {
    std::vector<distillation::Measurement*> all;
    for (Part& part : parts) {
        all.push_back(&part.value);
        for (auto& [name, measured] : part.metrics) all.push_back(&measured);
    }
    distillation::Measurement::read(all);
}

std::string Stepper::bytes_of(std::vector<Part> parts) {
    read(parts);
    Packet packet;
    packet.add(static_cast<std::uint64_t>(parts.size()));
    for (const Part& part : parts) {
        packet.add(part.micro_batch);
        packet.add(part.weight);
        packet.add(part.value.value());
        packet.add(static_cast<std::uint64_t>(part.metrics.size()));
        for (const auto& [name, measured] : part.metrics) {
            packet.add_text(name);
            packet.add(measured.value());
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
                               std::int64_t micro_batch, std::vector<Tensor>& gradients,
                               GradientWatch::Session* session) {
    const distillation::Loss loss = stage_.loss(i, step, inner_step, micro_batch);
    const double factor = scales_[i].factor() * loss.weight;
    const backends::Parameters& parameters = *learners_[i].parameters;
    const auto by_leaves = [&](const Tensor& value) {
        const Tensor scaled = factor == 1.0 ? value : value * factor;
        return torch::autograd::grad({scaled}, parameters.leaves(), {}, std::nullopt, false,
                                     /*allow_unused=*/true);
    };
    if (session) {
        by_leaves(loss.value);
        session->next_loss();
        if (loss.apart.defined()) by_leaves(loss.apart);
        gradients = session->rest();
    } else {
        gradients = parameters.joined_gradients(by_leaves(loss.value));
        if (loss.apart.defined())
            add(gradients, parameters.joined_gradients(by_leaves(loss.apart)));
    }
    if (!loss.apart.defined()) return {micro_batch, loss.weight, loss.value, loss.metrics};
    return {micro_batch, loss.weight, loss.value.detach() + loss.apart.detach(), loss.metrics};
}

bool Stepper::add_parts(std::size_t i, std::int64_t step, std::int64_t inner_step,
                        parallel::GradientSum& sum, std::vector<Part>& parts) {
    const std::int64_t count = stage_.micro_batches(i), world = ranks_.world();
    bool late = false;
    for (std::int64_t first = 0; first < count; first += world) {
        const std::int64_t micro_batch = first + ranks_.rank();
        const bool computes = micro_batch < count, last = first + world >= count,
                   sends = last && buckets_[i].has_value();
        std::vector<Tensor> found;
        if (sends) sum.begin();
        if (computes && last && !ranks_.is_alone()) {
            GradientWatch::Complete complete;
            if (sends)
                complete = [&sum](std::size_t tensor, Tensor gradient) {
                    sum.ready(tensor, std::move(gradient));
                };
            GradientWatch::Session session(*watches_[i], std::move(complete));
            parts.push_back(part_of(i, step, inner_step, micro_batch, found, &session));
            late = session.late();
        } else if (computes) {
            parts.push_back(part_of(i, step, inner_step, micro_batch, found, nullptr));
        }
        if (sends) sum.finish(std::move(found));
        else sum.add(std::move(found));
    }
    early_sums_ += sum.early_buckets();
    return late;
}

void Stepper::choose_buckets(std::size_t i) {
    std::vector<std::int64_t> sizes;
    for (const auto& [name, tensor] : learners_[i].parameters->tensors())
        sizes.push_back(tensor.numel());
    // Rank 0 always computes a micro-batch of the last round.
    Tensor order = at::empty({static_cast<std::int64_t>(sizes.size())}, at::kLong);
    auto* values = order.mutable_data_ptr<std::int64_t>();
    if (ranks_.leads()) std::ranges::copy(watches_[i]->order(), values);
    ranks_.broadcast(order);
    buckets_[i] = parallel::buckets_of({values, values + order.numel()}, sizes, bucket_bytes_);
}

std::vector<Stepper::Part> Stepper::gradients_of(std::size_t i, std::int64_t step,
                                                 std::int64_t inner_step,
                                                 std::vector<Tensor>& gradients) {
    const std::int64_t count = stage_.micro_batches(i);
    if (ranks_.rank() >= count && stage_.has_value_of_first_micro_batch(i)) ranks_.broadcast(0.0);
    std::optional<parallel::GradientSum> sum;
    for (;;) {
        if (!sum)
            sum.emplace(ranks_, reduction_, learners_[i].parameters->list(), count,
                        buckets_[i] ? &*buckets_[i] : nullptr);
        std::vector<Part> parts;
        const bool late = add_parts(i, step, inner_step, *sum, parts);
        std::vector<std::string> reports{sum->report()};
        bool any_late = late;
        if (!ranks_.is_alone()) {
            Packet packet;
            packet.add(core::stop_requested());
            packet.add(late);
            packet.add_text(reports.front());
            packet.add_text(bytes_of(std::move(parts)));
            reports.clear();
            parts.clear();
            any_stops_ = any_late = false;
            for (const std::string& bytes : ranks_.gather(packet.bytes())) {
                Packet of_rank(bytes);
                any_stops_ = of_rank.take<bool>() || any_stops_;
                any_late = of_rank.take<bool>() || any_late;
                reports.push_back(of_rank.take_text());
                for (Part& part : parts_in(of_rank.take_text())) parts.push_back(std::move(part));
            }
            std::ranges::sort(parts, {}, &Part::micro_batch);
        }
        if (any_late) {
            // Some gradient was not complete when it was sent: all wait for the end this time.
            buckets_[i].reset();
            sum.reset();
            continue;
        }
        if (!sum->complete(reports)) continue;
        if (!ranks_.is_alone() && !buckets_[i]) choose_buckets(i);
        if (sum->finite()) gradients = sum->take();
        return parts;
    }
}

bool Stepper::waits_for_nothing(std::size_t i) const {
    return ranks_.is_alone() && !scales_[i].active() &&
           !learners_[i].parameters->list().front().is_cpu();
}

StepMetrics Stepper::update(std::size_t i, std::int64_t step, std::int64_t inner_step) {
    std::vector<Tensor> gradients;
    Outcome outcome{i, step, gradients_of(i, step, inner_step, gradients),
                    std::numeric_limits<double>::quiet_NaN()};
    StepMetrics metrics;
    for (const Part& part : outcome.parts) metrics.add(part.metrics, part.weight);
    stage_.finish_update(i);
    LossScale& scale = scales_[i];
    if (waits_for_nothing(i) && !gradients.empty()) {
        Tensor sum;  // finite if all losses are
        for (const Part& part : outcome.parts)
            sum = sum.defined() ? sum + part.value.unread() : part.value.unread();
        outcome.norm = optimizers_[i].update_unread(std::move(gradients), sum);
        metrics.add(learners_[i].name + "_gradient", outcome.norm);
        unchecked_.push_back(std::move(outcome));
        if (unchecked_.size() >= most_unchecked) check();
        return metrics;
    }
    read(outcome.parts);
    check_loss(outcome);
    if (!gradients.empty())
        outcome.norm = optimizers_[i].update(std::move(gradients), scale.factor());
    if (!scale.update(std::isfinite(outcome.norm.value()))) reject_norm(outcome);
    metrics.add(learners_[i].name + "_gradient", outcome.norm);
    if (scale.active()) {
        metrics.add(learners_[i].name + "_loss_scale", scale.factor());
        metrics.add(learners_[i].name + "_skipped", scale.skipped());
    }
    return metrics;
}

void Stepper::check() {
    std::vector<distillation::Measurement*> all;
    for (Outcome& outcome : unchecked_) {
        for (Part& part : outcome.parts) all.push_back(&part.value);
        all.push_back(&outcome.norm);
    }
    distillation::Measurement::read(all);
    const std::vector<Outcome> read = std::move(unchecked_);
    unchecked_.clear();
    for (const Outcome& outcome : read) {
        check_loss(outcome);
        if (!std::isfinite(outcome.norm.value())) reject_norm(outcome);
    }
}

/// Gradients can be finite although the loss is not; they are meaningless then.
void Stepper::check_loss(const Outcome& of) const {
    double value = 0;
    for (const Part& part : of.parts) value += part.weight * part.value.value();
    if (!std::isfinite(value))
        throw NotFinite(fmt::format("the loss of {} became {} at step {}",
                                    learners_[of.learner].name, value, of.step));
}

/// Says that a norm is not finite.
void Stepper::reject_norm(const Outcome& of) const {
    throw NotFinite(fmt::format("the gradient of {} became {} at step {}",
                                learners_[of.learner].name, of.norm.value(), of.step));
}

}  // namespace atelier::training
