#pragma once

#include "atelier/distillation/stage.h"

namespace atelier::training {

/// AdamW (Loshchilov & Hutter 2019) over a parameter map, with clipping by global norm and the average of the weights.
class Optimizer {
public:
    /// `total_updates` is what the schedule stretches over.
    Optimizer(ops::Parameters& parameters, distillation::Optimization settings, std::int64_t total_updates);

    /// Moves the parameters down `gradients` (in the order of the map; undefined ones count as zero), which are `scale` times too large. Returns the
    /// gradient's norm before clipping; when that is not finite nothing is moved.
    double update(std::vector<Tensor> gradients, double scale = 1.0);

    /// The weights to use: the average where one is kept, else the parameters themselves.
    const ops::Parameters& averaged() const { return settings_.ema_decay > 0 ? average_ : parameters_; }
    /// The further averages, by their decays as people write them ("0.9999").
    const std::map<std::string, ops::Parameters>& more_averages() const { return more_; }

    /// Everything that a checkpoint must hold, sharing memory with this object: weights/, ema/, ema-<decay>/, first_moment/,
    /// second_moment/, updates.
    ops::Parameters state() const;
    /// Overwrites the state; names and shapes must be those of state(). Throws core::Error otherwise.
    void restore(const ops::Parameters& state);

    std::int64_t updates_done() const;

private:
    ops::Parameters& parameters_;
    distillation::Optimization settings_;
    std::int64_t total_;
    void follow(ops::Parameters& average, double decay, std::int64_t done) const;

    ops::Parameters average_, first_, second_;
    std::map<std::string, ops::Parameters> more_;
    Tensor updates_;     // int64 scalar: a float32 would stop at 2^24
    Tensor for_kernel_;  // the same as float32, which the fused kernel asks for
};

/// The learning rate of update number `update` (from 0).
double scheduled_rate(const distillation::Optimization& settings, std::int64_t update, std::int64_t total);

}  // namespace atelier::training
