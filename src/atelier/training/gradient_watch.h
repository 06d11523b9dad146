#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "atelier/backends/torch/parameters.h"

namespace atelier::training {

/// Sees the gradients of a learner's tensors while a backward pass still computes others, by hooks
/// on its leaves. Which gradients are to come, and in which order, it learns from one session to
/// the next: at first none counts as complete before the end.
class GradientWatch {
public:
    /// Called with the place of a tensor in the parameters' list() and its gradient, on the thread
    /// that computes it.
    using Complete = std::function<void(std::size_t, Tensor)>;

    /// Of `parameters`, which must outlive this with their narrow copies.
    explicit GradientWatch(const backends::Parameters& parameters);
    ~GradientWatch();
    GradientWatch(const GradientWatch&) = delete;
    GradientWatch& operator=(const GradientWatch&) = delete;

    /// From here to its end, gradients are kept for the caller: those by the leaves of one loss or
    /// of two that are differentiated one after the other and whose gradients are added.
    class Session {
    public:
        /// `complete`, if any, is called for each tensor that has all the gradients which came for
        /// it in earlier sessions.
        explicit Session(GradientWatch& watch, Complete complete = {});
        ~Session();
        Session(const Session&) = delete;
        Session& operator=(const Session&) = delete;

        /// The next loss is differentiated.
        void next_loss();
        /// The gradients that `complete` was not called with, in the order of the parameters;
        /// undefined ones for the others.
        std::vector<Tensor> rest();
        /// Whether a tensor's gradient went on after `complete` was called with it, so that its
        /// sum is wrong. It will not in the next session.
        bool late() const;

    private:
        GradientWatch& watch_;
    };

    /// The tensors in the order in which their gradients were complete in the first session.
    const std::vector<std::int64_t>& order() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace atelier::training
