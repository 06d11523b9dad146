#include "atelier/training/gradient_watch.h"

#include <algorithm>
#include <array>

namespace atelier::training {

namespace {

constexpr std::size_t losses = 2;  // of one session, at most

/// The gradient of one loss by a tensor, from those by the tensor and by its narrow copy.
Tensor joined(const Tensor& tensor, const Tensor& by_tensor, const Tensor& by_copy) {
    if (!by_copy.defined()) return by_tensor;
    if (by_tensor.defined()) return by_tensor + by_copy;
    return at::empty_like(tensor).copy_(by_copy);
}

}  // namespace

struct GradientWatch::State {
    /// What has come for a tensor in this session.
    struct Found {
        std::array<std::array<Tensor, 2>, losses> gradients;  // by the tensor, by its copy
        int count = 0;
        std::int64_t last = 0;  // when the last one came
        bool handed = false;
    };

    void begin(Complete to_call) {
        found.assign(tensors.size(), {});
        expected.resize(tensors.size(), 0);
        complete = std::move(to_call);
        loss = 0, came = 0;
        late = false, active = true;
    }

    void take(std::size_t index, bool copy, const Tensor& gradient) {
        if (!active || !gradient.defined()) return;
        Found& of = found[index];
        of.gradients[loss][copy ? 1 : 0] = gradient;
        of.last = ++came;
        ++of.count;
        late = late || of.handed;
        if (!complete || of.handed || of.count != expected[index]) return;
        of.handed = true;
        complete(index, whole(index));
    }

    /// The sum of what came for a tensor; undefined where nothing did.
    Tensor whole(std::size_t index) {
        at::NoGradGuard no_gradients;
        Tensor sum;
        for (auto& [by_tensor, by_copy] : found[index].gradients) {
            const Tensor more = joined(tensors[index], by_tensor, by_copy);
            by_tensor = by_copy = Tensor();
            if (!sum.defined()) sum = more;
            else if (more.defined()) sum = sum + more;
        }
        return sum;
    }

    void end() {
        if (!active) return;
        active = false;
        complete = {};
        for (std::size_t i = 0; i < found.size(); ++i)
            expected[i] = std::max(expected[i], found[i].count);
        if (!order.empty()) return;
        for (std::size_t i = 0; i < found.size(); ++i)
            order.push_back(static_cast<std::int64_t>(i));
        // Those that nothing came for are last.
        std::ranges::stable_sort(order, {}, [&](std::int64_t i) {
            const Found& of = found[static_cast<std::size_t>(i)];
            return of.count > 0 ? of.last : came + 1;
        });
    }

    std::vector<Tensor> tensors;
    std::vector<Found> found;
    std::vector<int> expected;  // gradients, by tensor
    std::vector<std::int64_t> order;
    Complete complete;
    std::size_t loss = 0;
    std::int64_t came = 0;
    bool active = false, late = false;
    std::vector<std::pair<Tensor, unsigned>> hooks;
};

GradientWatch::GradientWatch(const backends::Parameters& parameters)
    : state_(std::make_unique<State>()) {
    State* const state = state_.get();
    const auto listen = [state](const Tensor& leaf, std::size_t index, bool copy) {
        if (!leaf.requires_grad()) return;
        state->hooks.emplace_back(leaf, leaf.register_hook([=](const Tensor& gradient) {
            state->take(index, copy, gradient);
        }));
    };
    for (const auto& [name, tensor] : parameters.tensors()) {
        const std::size_t index = state->tensors.size();
        state->tensors.push_back(tensor);
        listen(tensor, index, false);
        const Tensor& copy = parameters.narrow(name);
        if (!copy.is_same(tensor)) listen(copy, index, true);
    }
}

GradientWatch::~GradientWatch() {
    for (const auto& [leaf, hook] : state_->hooks) leaf.remove_hook(hook);
}

const std::vector<std::int64_t>& GradientWatch::order() const { return state_->order; }

GradientWatch::Session::Session(GradientWatch& watch, Complete complete) : watch_(watch) {
    watch_.state_->begin(std::move(complete));
}

GradientWatch::Session::~Session() { watch_.state_->end(); }

void GradientWatch::Session::next_loss() {
    watch_.state_->loss = std::min(watch_.state_->loss + 1, losses - 1);
}

bool GradientWatch::Session::late() const { return watch_.state_->late; }

std::vector<Tensor> GradientWatch::Session::rest() {
    State& state = *watch_.state_;
    std::vector<Tensor> all(state.tensors.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (!state.found[i].handed) all[i] = state.whole(i);
    }
    return all;
}

}  // namespace atelier::training
