#pragma once

#include <optional>

#include "atelier/conditions/prior.h"
#include "atelier/diffusion/condition_table.h"
#include "atelier/diffusion/noise_levels.h"
#include "atelier/distillation/adversarial.h"
#include "atelier/distillation/parts.h"
#include "atelier/distillation/regression.h"

namespace atelier::distillation {

struct AdversarialSettings {
    std::optional<double> gan_weight;   // of the generator's GAN loss; nothing: balanced against the DM gradient
    double gan_balance = 1.0;           // when balanced: norm of the weighted GAN gradient over the DM gradient's, both on the samples
    double discriminator_weight = 0.01;
    std::int64_t highest_level = 999;   // of 1000 Karras levels: where more noise is added, real and generated can hardly be told apart
    double r1_weight = 0.0;
    std::string divergence = "reverse_kl";
};

struct MatchingSettings {
    std::int64_t steps = 1000, batch = 64, fake_updates = 5;
    std::int64_t micro_batch = 0;  // samples computed at once; 0: all
    std::int64_t critic_warmup = 0;  // updates of the fake score before the first of the student
    Optimization student, fake;
    diffusion::Scheme scheme;
    diffusion::NoiseRange range;
    ops::Compute compute;
    bool score_identity = false;  // SiD's loss instead of distribution matching's
    double sid_alpha = 1.0;
    double regression_weight = 0.0;
    std::optional<AdversarialSettings> adversarial;
    std::uint64_t seed = 0;
    std::string stream;  // names the random streams, e.g. "dm/2"
};

/// Pairs of the teacher: `noise`, the sample it became, and its class.
struct PairBatch {
    Tensor noise, samples;
    std::vector<std::int64_t> labels;
};

/// What a matching stage works with; all references must outlive it.
struct MatchingParts {
    const networks::Network& student_network;
    ops::Parameters& student;
    const networks::Network& fake_network;
    ops::Parameters& fake;  // the fake score, and the GAN head under "head."
    const diffusion::Denoiser& teacher;
    conditions::Prior prior;   // of the student's cell
    BatchSource real;          // of the cell; needed by the GAN head. Without, health compares with standard normal numbers, as scaled latents are
    std::function<PairBatch(std::int64_t step)> pairs;  // needed with a regression weight
    RegressionLoss regression;
    std::optional<diffusion::ConditionTable> conditions{};  // what labels stand for; nothing: the student's classes
};

/// Distribution matching (DMD, DMD2) of a one-step student, with regression on pairs, a GAN head (ADM), other divergences or SiD's loss
/// where asked for. Learners: the fake score, updated `fake_updates` times a step, then the student. An update in parts is that of the whole batch, but for two
/// things that a part takes from itself: the mean that a divergence's weights are divided by, and the balance of the GAN's gradient (from the first).
class DistributionMatching : public Stage {
public:
    DistributionMatching(MatchingParts parts, MatchingSettings settings);

    std::int64_t steps() const override { return settings_.steps; }
    std::vector<Learner> learners() override;
    std::int64_t parts(std::size_t) const override { return parts_of(settings_.batch, settings_.micro_batch); }
    Loss loss(std::size_t index, std::int64_t step, std::int64_t turn, std::int64_t part) override;
    Tensor sample(const ops::Parameters& weights, const Tensor& noise, const diffusion::Condition& condition) const override;
    std::map<std::string, double*> scalars() override { return {{"gan_weight", &gan_weight_}, {"highest_diversity", &highest_diversity_}}; }
    std::vector<Finding> health(Metrics& metrics, const Tensor& probe) override;

private:
    struct Generated {
        Tensor x;
        diffusion::Condition condition;
    };
    struct Noised {
        Tensor x_t, sigma;
    };

    /// Standard normal numbers and levels of this step and turn, each from a stream of its own.
    core::RandomStream stream(const std::string& what, std::int64_t step, std::int64_t turn) const;
    Generated generate(const char* learner, std::int64_t step, std::int64_t turn);
    Noised noised(const Tensor& x, const std::string& what, std::int64_t step, std::int64_t turn, std::int64_t first, std::int64_t last);
    Loss fake_loss(std::int64_t step, std::int64_t turn);
    Loss student_loss(std::int64_t step);
    Tensor score_identity_loss(const Generated& generated, const Noised& at) const;
    Tensor matching_gradient(const Generated& generated, const Noised& at, Metrics& metrics) const;
    void add_discriminator(Loss& loss, const Tensor& bottleneck_of_fake, const Tensor& sigma, std::int64_t step, std::int64_t turn);
    struct Judged {
        Tensor within;  // places in the part
        double weight;  // of their mean in the part's loss
    };
    Judged judged(const Tensor& sigma);
    void add_gan(Loss& loss, const Generated& generated, const Tensor& matching_slope, std::int64_t step);
    void add_regression(Loss& loss, std::int64_t step);
    diffusion::EdmDenoiser fake_score() const;

    MatchingParts parts_;
    MatchingSettings settings_;
    diffusion::ConditionTable conditions_;
    conditions::ClassDraws drawn_;
    std::vector<double> levels_;
    Draws draws_;
    Rows rows_;  // of the part at hand
    Tensor health_real_;
    double gan_weight_;
    double highest_diversity_ = 0;  // of the probes so far
};

/// The distribution-matching gradient on generated samples (DMD2): (fake - real) / (mean|x - real| + eps) a sample, entries that are not finite
/// set to 0. `real` and `fake` are the denoised estimates of teacher and fake score. All [N,...].
Tensor distribution_matching_gradient(const Tensor& x, const Tensor& real, const Tensor& fake);

/// 0.5 mean((x - stopgrad(x - gradient))^2), whose derivative by x is gradient / numel.
Tensor loss_with_gradient(const Tensor& x, const Tensor& gradient);

}  // namespace atelier::distillation
