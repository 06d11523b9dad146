#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "atelier/backends/torch/parameters.h"
#include "atelier/diffusion/denoiser.h"
#include "atelier/distillation/measurement.h"
#include "atelier/distillation/settings.h"

namespace atelier::distillation {

/// Real samples in model space [n,...] and their classes (empty when unlabelled).
struct LabelledBatch {
    Tensor samples;
    std::vector<std::int64_t> labels;
};

/// Batch number `step` of a data set: a function of the step alone.
using BatchSource = std::function<LabelledBatch(std::int64_t step)>;

/// A set of parameters that a stage trains, and how.
struct Learner {
    std::string name;
    backends::Parameters* parameters;
    Optimization optimization;
    std::int64_t updates = 1;              // per step of the stage
    std::int64_t warmup_updates = 0;       // run alone before the first step, so that a critic
                                           // adapts to weights it was not trained with
    std::optional<at::ScalarType> type{};  // in which its products and convolutions are computed
};

struct Loss {
    Tensor value;  // a scalar to be minimised, together with `apart`
    Measurements metrics;
    double weight = 1.0;  // fraction of the update's batch in this micro-batch
    Tensor apart{};       // another term, whose graph shares only parameters with that of `value`
};

/// One result of a health check: fine, worth a look, or so broken that continuing is pointless.
struct Finding {
    enum class Level { ok, warning, collapse };
    Level level = Level::ok;
    std::string message;
};

/// One training stage as mathematics: which parameters learn, and by which loss. Data order,
/// optimisers, checkpoints and logs belong to the loop (training/loop.h), which knows stages only
/// through this class.
///
/// Every random number a stage uses comes from named streams indexed by step and inner step, so
/// that a step is a function of the parameters and its number.
class Stage {
public:
    virtual ~Stage() = default;

    virtual std::int64_t steps() const = 0;

    /// In the order in which they are updated within a step; the last one is the stage's result.
    virtual std::vector<Learner> learners() = 0;

    /// Into how many micro-batches an update of learner `index` is divided; only the activations of
    /// one of them are in memory at a time.
    virtual std::int64_t micro_batches(std::size_t index) const { return 1; }

    /// The loss of micro-batch `micro_batch` of update number `inner_step` of learner `index` in
    /// step `step` (steps() and above in warm-up updates): a mean over the micro-batch's samples.
    /// The update's loss is the weighted sum over its micro-batches and does not depend on their
    /// number, up to rounding. They are requested in increasing order, some of them by other
    /// processes where several share the update; one may be requested again with the same result.
    virtual Loss loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
                      std::int64_t micro_batch) = 0;

    /// Called after an update of learner `index`: state that the update found takes effect.
    virtual void finish_update(std::size_t index) {}

    /// Whether an update of learner `index` calls of_first_micro_batch, then once in every process.
    virtual bool has_value_of_first_micro_batch(std::size_t index) const { return false; }

    /// How the processes that share an update agree on a value: `agree` returns the argument that
    /// the process of micro-batch 0 gave it, in all of them.
    void agree_by(std::function<double(double)> agree) { agree_ = std::move(agree); }

    /// Samples [N,...] drawn with `weights` for the stage's last learner, from standard normal
    /// `noise` [N,...].
    virtual Tensor sample(const backends::Parameters& weights, const Tensor& noise,
                          const diffusion::Condition& condition) const = 0;

    /// State other than parameters that a resumed run needs; the loop saves and restores it. What
    /// lies on a device is read for this.
    virtual std::map<std::string, double*> scalars() { return {}; }

    /// Checks the latest metrics and `probe`, samples from fixed noise with the current weights;
    /// appends its measurements to `metrics`.
    virtual std::vector<Finding> health(Metrics& metrics, const Tensor& probe) { return {}; }

protected:
    /// Whether of_first_micro_batch asks another process.
    bool agrees() const { return static_cast<bool>(agree_); }
    /// In the loss of an update's first micro-batch that this process computes: the value that
    /// micro-batch 0 gives to all. `mine` counts in the process that computes micro-batch 0.
    double of_first_micro_batch(double mine) const { return agree_ ? agree_(mine) : mine; }

private:
    std::function<double(double)> agree_;
};

}  // namespace atelier::distillation
