#pragma once

#include "atelier/core/error.h"
#include "atelier/parallel/gradient_sum.h"
#include "atelier/training/gradient_watch.h"
#include "atelier/training/loss_scale.h"
#include "atelier/training/optimizer.h"
#include "atelier/training/step_metrics.h"

namespace atelier::training {

/// A non-finite loss or gradient; the learner it belongs to has not moved.
class NotFinite : public core::Error {
    using core::Error::Error;
};

/// Performs the steps of a stage: updates every learner in order, with its number of inner steps
/// and micro-batches and its own optimiser. Where several ranks share a stage, each computes every
/// W-th micro-batch, and all make the same updates.
///
/// On an accelerator a step does not wait for the device: what it measured is read when it is asked
/// for, and whether all of it was finite, by check(). It does wait once for each update where
/// losses are scaled (fp16) or there are several micro-batches whose sum is exact, and more often
/// where ranks share the stage.
///
/// From the second update of a learner on, ranks sum the gradients of their last micro-batch while
/// it is still differentiated.
class Stepper {
public:
    /// `stage` and `ranks` must outlive this, and so must the stage's parameters, which hold narrow
    /// copies as long as this lives. `share_optimizers`: ranks share out the optimisers' state.
    /// `bucket_bytes`: of gradients that are summed together (parallel::Buckets).
    explicit Stepper(distillation::Stage& stage,
                     parallel::Reduction reduction = parallel::Reduction::exact,
                     parallel::Ranks& ranks = parallel::Ranks::alone(),
                     bool share_optimizers = false,
                     std::int64_t bucket_bytes = parallel::bucket_bytes);
    ~Stepper();
    Stepper(const Stepper&) = delete;
    Stepper& operator=(const Stepper&) = delete;

    /// Performs step `number`, a function of the parameters, the optimisers' state and `number`.
    /// Throws NotFinite, on an accelerator perhaps only in check(). A request to stop ends it after
    /// an update of the first learner that is not its last; the next call goes on with the rest.
    StepMetrics step(std::int64_t number);

    /// The updates that a step which was ended early has behind it; 0: it was not.
    std::int64_t updates_begun() const { return begun_; }
    /// The next step() leaves out so many.
    void set_updates_begun(std::int64_t updates) { begun_ = updates; }

    /// Throws NotFinite if a loss or gradient since the last call was not finite. What was trained
    /// since then must not be saved before. Waits for the device.
    void check();

    /// The largest number of warm-up updates of any learner.
    std::int64_t warmup_updates() const;
    /// Performs warm-up update `number` of every learner that has so many. Throws NotFinite.
    StepMetrics warm_up(std::int64_t number);

    const std::vector<distillation::Learner>& learners() const { return learners_; }
    /// In the order of the learners.
    std::vector<Optimizer>& optimizers() { return optimizers_; }
    const std::vector<Optimizer>& optimizers() const { return optimizers_; }
    /// Scalars that a checkpoint must hold in addition to the optimisers' states.
    std::map<std::string, double*> scalars();

    /// Sums over ranks that began before the backward pass had ended.
    std::int64_t early_sums() const { return early_sums_; }

    /// Whether this process has been asked to stop, or had any of the ranks at the end of the last
    /// update: the same on all of them.
    bool stop_requested() const;

private:
    /// What a micro-batch found beside gradients.
    struct Part {
        std::int64_t micro_batch = 0;
        double weight = 1;
        distillation::Measurement value = 0.0;
        distillation::Measurements metrics;
    };
    /// What decides whether an update was finite.
    struct Outcome {
        std::size_t learner;
        std::int64_t step;
        std::vector<Part> parts;
        distillation::Measurement norm;  // of the gradient
    };
    StepMetrics update(std::size_t learner, std::int64_t step, std::int64_t inner_step);
    /// Whether an update of a learner waits for nothing.
    bool waits_for_nothing(std::size_t learner) const;
    void check_loss(const Outcome& of) const;
    [[noreturn]] void reject_norm(const Outcome& of) const;
    /// Sums the scaled gradients over the micro-batches of an update, on all ranks; returns what
    /// its micro-batches found, in order. No gradients where some are not finite.
    std::vector<Part> gradients_of(std::size_t learner, std::int64_t step, std::int64_t inner_step,
                                   std::vector<Tensor>& gradients);
    /// Adds this rank's micro-batches to `sum`, round by round. Returns whether it must be done
    /// again, since a gradient was sent too early.
    bool add_parts(std::size_t learner, std::int64_t step, std::int64_t inner_step,
                   parallel::GradientSum& sum, std::vector<Part>& parts);
    /// Ranks agree on the order in which gradients are complete.
    void choose_buckets(std::size_t learner);
    Part part_of(std::size_t learner, std::int64_t step, std::int64_t inner_step,
                 std::int64_t micro_batch, std::vector<Tensor>& gradients,
                 GradientWatch::Session* session);
    static void read(std::vector<Part>& parts);
    static std::string bytes_of(std::vector<Part> parts);
    static std::vector<Part> parts_in(std::string_view bytes);

    distillation::Stage& stage_;
    parallel::Reduction reduction_;
    parallel::Ranks& ranks_;
    bool any_stops_ = false;
    std::int64_t begun_ = 0;
    std::vector<distillation::Learner> learners_;
    std::vector<Optimizer> optimizers_;
    std::vector<LossScale> scales_;
    std::vector<Outcome> unchecked_;
    // Of ranks that share the stage, by learner; no buckets: not known yet.
    std::vector<std::unique_ptr<GradientWatch>> watches_;
    std::vector<std::optional<parallel::Buckets>> buckets_;
    std::int64_t bucket_bytes_, early_sums_ = 0;
};

}  // namespace atelier::training
