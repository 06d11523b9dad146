#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "atelier/diffusion/denoiser.h"
#include "atelier/ops/parameters.h"

namespace atelier::distillation {

/// Named numbers of one step, in the order in which they are shown.
using Metrics = std::vector<std::pair<std::string, double>>;

/// Real samples in model space [n,...] and their classes (empty when unlabelled).
struct LabelledBatch {
    Tensor samples;
    std::vector<std::int64_t> labels;
};

/// Batch number `step` of some data: a function of the step alone.
using BatchSource = std::function<LabelledBatch(std::int64_t step)>;

/// How a learner's parameters move: AdamW with a linear warm-up and a linear decay over the last part of the stage.
struct Optimization {
    double lr = 1e-4;
    double beta1 = 0.9, beta2 = 0.999;
    double weight_decay = 0.01;
    double clip = 10.0;           // global norm of the gradient; 0: none
    std::int64_t warmup = 0;      // updates until the full rate
    double decay_from = 1.0;      // share of the stage after which the rate falls linearly to `final_share` of lr
    double final_share = 0.0;
    double ema_decay = 0.0;       // 0: no average is kept
    std::vector<double> more_ema_decays{};  // of further averages
    std::int64_t warm_from = 0;   // the update with which the warm-up begins: of a stage that goes on beyond its first end
    double loss_scale = 0.0;      // float16: what the loss is multiplied by at first, so that small gradients are none of zero; 0: not
};

/// Parameters that a stage trains, and how.
struct Learner {
    std::string name;
    ops::Parameters* parameters;
    Optimization optimization;
    std::int64_t updates = 1;  // a step of the stage
    std::int64_t warmup_updates = 0;  // taken alone before the first step: a critic gets to know weights that it was not trained beside
};

struct Loss {
    Tensor value;  // a scalar to be minimised
    Metrics metrics;
    double share = 1.0;  // of the update's batch that this part computed
};

/// What a reading of a run's health says: fine, worth a look, or so broken that going on is a waste.
struct Finding {
    enum class Level { ok, warning, collapse };
    Level level = Level::ok;
    std::string words;
};

/// One training stage as mathematics: which parameters learn, by which loss. Data order, optimiser, checkpoints, logs are the loop's
/// business (training/loop.h), which knows stages only through this class.
///
/// Every random number a stage uses comes from named streams indexed by step and turn, so that a step is a function of the
/// parameters and its number.
class Stage {
public:
    virtual ~Stage() = default;

    virtual std::int64_t steps() const = 0;

    /// In the order in which they are updated within a step; the last one is what the stage is for.
    virtual std::vector<Learner> learners() = 0;

    /// How many parts an update of learner `index` is computed in, so that only a part's activations are in memory at once.
    virtual std::int64_t parts(std::size_t index) const { return 1; }

    /// The loss of part `part` of update number `turn` of learner `index` in step `step` (from steps() on for warm-up updates): a mean over the part's samples. The update's loss is the
    /// sum of the parts', each times its share, and is the same however many parts there are, but for rounding. Parts are asked for in their order.
    virtual Loss loss(std::size_t index, std::int64_t step, std::int64_t turn, std::int64_t part) = 0;

    /// Samples drawn with `weights` for the stage's last learner, from standard normal `noise`.
    virtual Tensor sample(const ops::Parameters& weights, const Tensor& noise, const diffusion::Condition& condition) const = 0;

    /// Numbers beyond parameters that a resumed run needs; the loop saves and restores them.
    virtual std::map<std::string, double*> scalars() { return {}; }

    /// Judges the latest metrics and `probe`, samples from fixed noise with the present weights; adds what it read off them to `metrics`.
    virtual std::vector<Finding> health(Metrics& metrics, const Tensor& probe) { return {}; }
};

}  // namespace atelier::distillation
