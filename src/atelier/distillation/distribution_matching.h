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

/// Distribution matching (DMD, DMD2) of a one-step student, with regression on pairs, a GAN head
/// (ADM), other divergences or SiD's loss as configured. Learners: the fake score, updated
/// `fake_updates` times per step, then the student. An update in micro-batches equals that of the
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
    std::map<std::string, double*> scalars() override {
        return {{"gan_weight", &gan_weight_}, {"highest_diversity", &highest_diversity_}};
    }
    std::vector<Finding> health(Metrics& metrics, const Tensor& probe) override;

private:
    /// Noise levels, and noise to add.
    struct Noise {
        Tensor sigma, added;
    };
    /// What the samples that the student generates are made from.
    struct Start {
        Tensor noise;
        std::vector<std::int64_t> labels;
    };
    /// The random values and data of an update of the fake score, and of the student.
    struct FakeDraws {
        Start start;
        Noise noise;
        std::optional<LabelledBatch> real;  // with a GAN head
        Noise real_noise{};
    };
    struct StudentDraws {
        Start start;
        Noise noise;
        Noise gan_noise{};  // with a GAN head
        std::optional<PairBatch> pairs;
        std::optional<double> gan_weight;  // the update's balanced weight, once it is known
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
    Start draw_start(const std::string& learner, std::int64_t step, std::int64_t inner_step) const;
    Noise draw_noise(const std::string& what, std::int64_t step, std::int64_t inner_step,
                     std::int64_t first, std::int64_t last) const;
    FakeDraws draw_fake(std::int64_t step, std::int64_t inner_step) const;
    StudentDraws draw_student(std::int64_t step) const;

    Generated generate(const Start& start, const MicroBatch& rows) const;
    static Noised noised(const Tensor& x, const Noise& noise, const MicroBatch& rows);
    Loss fake_loss(const FakeDraws& draws, const MicroBatch& rows) const;
    Loss student_loss(StudentDraws& draws, const MicroBatch& rows) const;
    Tensor score_identity_loss(const Generated& generated, const Noised& at) const;
    Tensor matching_gradient(const Generated& generated, const Noised& at, Metrics& metrics) const;
    void add_discriminator(Loss& loss, const Tensor& bottleneck_of_fake, const FakeDraws& draws,
                           const MicroBatch& rows) const;
    struct HeadSamples {
        Tensor rows;    // indices in the micro-batch
        double weight;  // of their mean in the micro-batch's loss
    };
    HeadSamples head_samples(const Tensor& sigma, const MicroBatch& rows) const;
    void add_gan(Loss& loss, const Generated& generated, const Tensor& dm_gradient,
                 StudentDraws& draws, const MicroBatch& rows) const;
    void add_regression(Loss& loss, const PairBatch& batch, const MicroBatch& rows) const;
    diffusion::EdmDenoiser fake_score() const;
    at::Device device() const { return inputs_.student.list().front().device(); }

    MatchingInputs inputs_;
    MatchingSettings settings_;
    StageContext context_;
    diffusion::ConditionTable conditions_;
    conditions::ClassSampler classes_;
    std::vector<double> levels_;
    UpdateDraws<FakeDraws> fake_draws_;
    UpdateDraws<StudentDraws> student_draws_;
    Tensor health_real_;
    double gan_weight_;
    double highest_diversity_ = 0;  // of all probes so far
};

/// The distribution-matching gradient on generated samples (DMD2): (fake - real) / (mean|x - real|
/// + eps) per sample, non-finite entries set to 0. `real` and `fake` are the denoised
/// estimates of teacher and fake score. All [N,...].
Tensor distribution_matching_gradient(const Tensor& x, const Tensor& real, const Tensor& fake);

/// 0.5 mean((x - stopgrad(x - gradient))^2), whose derivative by x is gradient / numel.
Tensor loss_with_gradient(const Tensor& x, const Tensor& gradient);

}  // namespace atelier::distillation
