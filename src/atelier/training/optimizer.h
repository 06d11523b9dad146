#pragma once

#include "atelier/distillation/stage.h"

namespace atelier::training {

/// AdamW (Loshchilov & Hutter 2019) over a parameter map, with global-norm clipping and averaged
/// weights (EMA).
class Optimizer {
public:
    /// `total_updates` is the length of the learning-rate schedule.
    Optimizer(backends::Parameters& parameters, distillation::Optimization settings,
              std::int64_t total_updates);

    /// Updates the parameters with `gradients` (in the map's order; undefined ones count as zero),
    /// which are multiplied by the loss scale `scale`. Returns the unscaled gradient norm before
    /// clipping; if it is not finite, nothing is updated.
    double update(std::vector<Tensor> gradients, double scale = 1.0);

    /// The same for unscaled gradients without waiting for the device that they are on: returns the
    /// norm as a scalar there. Where it or `loss`, another scalar, is not finite, the parameters
    /// are not updated; everything that the update was for must then be given up, since averages
    /// and the schedule go on.
    Tensor update_unread(std::vector<Tensor> gradients, const Tensor& loss);

    /// The weights to use: the average if one is kept, else the parameters themselves.
    const backends::Parameters& averaged() const {
        return settings_.ema_decay > 0 ? average_ : parameters_;
    }
    /// The additional averages, by decay in shortest decimal notation ("0.9999").
    const std::map<std::string, backends::Parameters>& more_averages() const { return more_; }

    /// All state that a checkpoint must hold, sharing memory with this object: weights/, ema/,
    /// ema-<decay>/, first_moment/, second_moment/, updates.
    backends::Parameters state() const;
    /// Overwrites the state; names and shapes must be those of state(). Throws core::Error
    /// otherwise.
    void restore(const backends::Parameters& state);

    std::int64_t updates_done() const;

    /// first_moment/, second_moment/ and the updates that made them, sharing memory with this
    /// object: what another optimiser goes on with.
    backends::Parameters moments() const;
    /// Begins with the moments of an optimiser of the same tensors instead of zeros; the learning
    /// rate and the averages begin again. Returns whether they are of the same tensors; if not,
    /// nothing is taken.
    bool take_moments(const backends::Parameters& moments);

private:
    backends::Parameters& parameters_;
    distillation::Optimization settings_;
    std::int64_t total_;
    std::vector<Tensor> trained_gradients(std::vector<Tensor> gradients) const;
    void apply(const std::vector<Tensor>& gradients, const std::optional<Tensor>& divisor,
               const std::optional<Tensor>& skip);
    void update_average(backends::Parameters& average, double decay, std::int64_t updates) const;

    backends::Parameters average_, first_moment_, second_moment_;
    std::map<std::string, backends::Parameters> more_;
    std::int64_t earlier_updates_ = 0;  // of the moments that were taken over
    Tensor updates_;                    // int64 scalar; float32 would stop counting at 2^24
    Tensor updates_float_;              // the same as float32, for the fused kernel
};

/// The learning rate of update number `update` (from 0).
double scheduled_rate(const distillation::Optimization& settings, std::int64_t update,
                      std::int64_t total);

}  // namespace atelier::training
