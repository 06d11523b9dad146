#pragma once

#include "atelier/distillation/stage.h"
#include "atelier/parallel/shares.h"

namespace atelier::kernels::gpu {
class Launcher;
}

namespace atelier::training {

/// AdamW (Loshchilov & Hutter 2019) over a parameter map, with global-norm clipping and averaged
/// weights (EMA).
///
/// Ranks may share out moments and averages, as ZeRO's first stage does (Rajbhandari et al. 2020):
/// each keeps those of some tensors, updates these, and sends them to the others. The bytes are
/// those of an optimiser that keeps all. What is called an operation here is then one of all ranks
/// (parallel::Ranks), and returns on ranks other than 0 only what they keep.
class Optimizer {
public:
    /// `total_updates` is the length of the learning-rate schedule. Moments and averages are shared
    /// out among `ranks`, which must outlive this.
    Optimizer(backends::Parameters& parameters, distillation::Optimization settings,
              std::int64_t total_updates, parallel::Ranks& ranks = parallel::Ranks::alone());

    /// Updates the parameters with `gradients` (in the map's order; undefined ones count as zero),
    /// which are multiplied by the loss scale `scale`. Returns the unscaled gradient norm before
    /// clipping; if it is not finite, nothing is updated. An operation.
    double update(std::vector<Tensor> gradients, double scale = 1.0);

    /// The same for unscaled gradients without waiting for the device that they are on: returns the
    /// norm as a scalar there. Where it or `loss`, another scalar, is not finite, the parameters
    /// are not updated; everything that the update was for must then be given up, since averages
    /// and the schedule go on. An operation.
    Tensor update_unread(std::vector<Tensor> gradients, const Tensor& loss);

    /// The weights to use: the average if one is kept, else the parameters themselves. An
    /// operation.
    backends::Parameters averaged() const;
    /// The additional averages, by decay in shortest decimal notation ("0.9999"). An operation.
    std::map<std::string, backends::Parameters> more_averages() const;

    /// All state that a checkpoint must hold, sharing memory with this object where it is kept
    /// here: weights/, ema/, ema-<decay>/, first_moment/, second_moment/, updates. An operation;
    /// what other ranks keep comes to the host.
    backends::Parameters state() const;
    /// Bytes of the moments and averages that are kept here.
    std::int64_t kept_bytes() const;
    /// Overwrites the state; names and shapes must be those of state() on rank 0. Throws
    /// core::Error otherwise.
    void restore(const backends::Parameters& state);

    std::int64_t updates_done() const;

    /// first_moment/, second_moment/ and the updates that made them, sharing memory with this
    /// object as state() does: what another optimiser goes on with. An operation.
    backends::Parameters moments() const;
    /// Begins with the moments of an optimiser of the same tensors instead of zeros; the learning
    /// rate and the averages begin again. Returns whether they are of the same tensors; if not,
    /// nothing is taken.
    bool take_moments(const backends::Parameters& moments);

private:
    /// Makes the whole of an average or moment from what is kept here.
    using Whole = std::function<backends::Parameters(const backends::Parameters& kept)>;

    backends::Parameters& parameters_;
    distillation::Optimization settings_;
    std::int64_t total_;
    parallel::Shares shares_;  // of the parameters, in the map's order
    std::vector<Tensor> trained_gradients(std::vector<Tensor> gradients) const;
    void apply(const std::vector<Tensor>& gradients, const std::optional<Tensor>& divisor,
               const std::optional<Tensor>& skip);
    void update_by_kernel(const kernels::gpu::Launcher& kernels,
                          const std::vector<Tensor>& parameters, std::vector<Tensor> gradients,
                          std::int64_t done, const std::optional<Tensor>& divisor,
                          const std::optional<Tensor>& skip);
    void update_average(backends::Parameters& average, double decay, std::int64_t updates) const;
    /// The parameters whose moments are kept here.
    backends::Parameters kept() const;
    /// The whole of `kept` on rank 0, what came from others on `device`.
    backends::Parameters gathered(const backends::Parameters& kept, at::Device device) const;
    backends::Parameters state_of(const Whole& whole) const;
    backends::Parameters moments_of(const Whole& whole) const;
    /// `kept` and, for what other ranks keep, tensors of the same shapes.
    backends::Parameters with_shapes(const backends::Parameters& kept) const;

    backends::Parameters average_, first_moment_, second_moment_;
    std::map<std::string, backends::Parameters> more_;
    std::int64_t earlier_updates_ = 0;  // of the moments that were taken over
    Tensor updates_;                    // int64 scalar; float32 would stop counting at 2^24
    Tensor updates_float_;              // the same as float32, for the fused kernel
    Tensor rate_;                       // a float32 scalar beside it, for our own kernel
};

/// The learning rate of update number `update` (from 0).
double scheduled_rate(const distillation::Optimization& settings, std::int64_t update,
                      std::int64_t total);

}  // namespace atelier::training
