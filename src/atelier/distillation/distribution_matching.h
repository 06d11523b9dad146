#pragma once

#include <optional>

#include "atelier/conditions/prior.h"
#include "atelier/diffusion/condition_table.h"
#include "atelier/diffusion/noise_schedule.h"
#include "atelier/distillation/adversarial.h"
#include "atelier/distillation/micro_batches.h"
#include "atelier/distillation/regression.h"

namespace atelier::distillation {

/// Teacher pairs: `noise` [N,...], the samples [N,...] generated from it, and their classes.
struct PairBatch {
    Tensor noise, samples;
    std::vector<std::int64_t> labels;
};

/// Networks and data of a matching stage; all references must outlive it.
struct MatchingInputs {
    const networks::Network& student_network;
    backends::Parameters& student;
    const networks::Network& fake_network;
    backends::Parameters& fake;  // the fake score, and the GAN head under "head."
    const diffusion::Denoiser& teacher;
    conditions::Prior prior;  // of the student's cell
    BatchSource real;         // of the cell; required by the GAN head. If empty, health compares
                              // with standard normal samples, as scaled latents are
    std::function<PairBatch(std::int64_t step)> pairs;  // required with a regression weight
    RegressionLoss regression;
    std::optional<diffusion::ConditionTable>
        conditions{};  // what labels stand for; unset: the student's classes
};

/// Distribution matching (DMD, DMD2) of a student of one step or few, with regression on pairs, a
/// GAN head (ADM), other divergences or SiD's loss as configured. Learners: the fake score, updated
/// `fake_updates` times per step, then the student. A student of few steps learns from what it
/// draws itself (DMD2's backward simulation): each update draws which of its evaluations it is
/// about, those before it are computed without gradients, and its estimate is what is matched.
/// Pairs teach the first evaluation. An update in micro-batches equals that of the
/// whole batch except for two values taken from a single micro-batch: the mean by which a
/// divergence's weights are normalised, and the balance of the GAN gradient (from the first).
class DistributionMatching : public Stage {
public:
    DistributionMatching(MatchingInputs inputs, MatchingSettings settings, StageContext context);

    std::int64_t steps() const override { return settings_.steps; }
    std::vector<Learner> learners() override;
    std::int64_t micro_batches(std::size_t) const override {
        return micro_batch_count(settings_.batch, settings_.micro_batch);
    }
    Loss loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
              std::int64_t micro_batch) override;
    void finish_update(std::size_t index) override;
    bool has_value_of_first_micro_batch(std::size_t index) const override;
    Tensor sample(const backends::Parameters& weights, const Tensor& noise,
                  const diffusion::Condition& condition) const override;
    std::map<std::string, double*> scalars() override;
    std::vector<Finding> health(Metrics& metrics, const Tensor& probe) override;

private:
    /// The noise levels of a batch, on the CPU and on the stage's device.
    struct Levels {
        Tensor on_host, sigma;
    };
    /// The random values and data of an update of the fake score, and of the student; the noise as
    /// the streams that it begins (noise_of).
    struct FakeDraws {
        std::vector<core::RandomStream> noise;
        std::vector<core::RandomStream> step_noise;  // one for each evaluation after the first
        std::vector<std::int64_t> labels;
        Levels levels;
        std::optional<LabelledBatch> real{};  // with a GAN head
        Levels real_levels{};
    };
    struct StudentDraws {
        std::vector<core::RandomStream> noise, step_noise;
        std::vector<std::int64_t> labels;
        Levels levels;
        Levels gan_levels{};  // with a GAN head
        std::optional<PairBatch> pairs{};
        Tensor gan_weight{};  // the update's balanced weight, once it is known, a float64 scalar
    };
    struct Generated {
        Tensor x;
        diffusion::Condition condition;
    };
    struct Noised {
        Tensor x_t, sigma;
    };

    /// The random stream named `what` of this step and inner step.
    core::RandomStream stream(const std::string& what, std::int64_t step,
                              std::int64_t inner_step) const;
    std::vector<std::int64_t> draw_labels(const std::string& learner, std::int64_t step,
                                          std::int64_t inner_step) const;
    Levels draw_levels(const std::string& what, std::int64_t step, std::int64_t inner_step,
                       std::int64_t first, std::int64_t last) const;
    std::vector<Tensor> noise_of(const std::vector<core::RandomStream>& streams,
                                 const MicroBatch& rows) const;
    FakeDraws draw_fake(std::int64_t step, std::int64_t inner_step) const;
    StudentDraws draw_student(std::int64_t step) const;

    std::vector<core::RandomStream> draw_step_noise(const std::string& learner, std::int64_t step,
                                                    std::int64_t inner_step) const;
    Generated generate(const Tensor& noise, const std::vector<core::RandomStream>& step_noise,
                       const std::vector<std::int64_t>& labels, const MicroBatch& rows) const;
    static Noised noised(const Tensor& x, const Levels& levels, const Tensor& added,
                         const MicroBatch& rows);
    Loss fake_loss(const FakeDraws& draws, const MicroBatch& rows) const;
    Loss student_loss(StudentDraws& draws, const MicroBatch& rows) const;
    Tensor score_identity_loss(const Generated& generated, const Noised& at) const;
    Tensor matching_gradient(const Generated& generated, const Noised& at,
                             Measurements& metrics) const;
    void add_discriminator(Loss& loss, const Tensor& bottleneck_of_fake, const FakeDraws& draws,
                           const Tensor& added_to_real, const MicroBatch& rows) const;
    struct HeadSamples {
        Tensor rows;    // indices in the micro-batch, on the stage's device
        double weight;  // of their mean in the micro-batch's loss
    };
    HeadSamples head_samples(const Tensor& sigma, const MicroBatch& rows) const;
    void add_gan(Loss& loss, const Generated& generated, const Tensor& dm_norm, StudentDraws& draws,
                 const Tensor& added, const MicroBatch& rows) const;
    Tensor balanced_weight(const Tensor& dm_norm, const Tensor& gan_norm) const;
    void add_regression(Loss& loss, const PairBatch& batch, const MicroBatch& rows) const;
    diffusion::EdmDenoiser fake_score() const;
    at::Device device() const { return inputs_.student.list().front().device(); }

    MatchingInputs inputs_;
    MatchingSettings settings_;
    StageContext context_;
    diffusion::ConditionTable conditions_;
    conditions::ClassSampler classes_;
    std::vector<double> levels_, student_levels_;
    UpdateDraws<FakeDraws> fake_draws_;
    UpdateDraws<StudentDraws> student_draws_;
    Tensor health_real_;
    double gan_weight_;             // when it was read last
    Tensor gan_weight_tensor_;      // since then; undefined if it has not changed
    double highest_diversity_ = 0;  // of all probes so far
};

/// The distribution-matching gradient on generated samples (DMD2): (fake - real) / (mean|x - real|
/// + eps) per sample, non-finite entries set to 0. `real` and `fake` are the denoised
/// estimates of teacher and fake score. All [N,...].
Tensor distribution_matching_gradient(const Tensor& x, const Tensor& real, const Tensor& fake);

/// 0.5 mean((x - stopgrad(x - gradient))^2), whose derivative by x is gradient / numel.
Tensor loss_with_gradient(const Tensor& x, const Tensor& gradient);

}  // namespace atelier::distillation
