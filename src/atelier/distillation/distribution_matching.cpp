#include "atelier/distillation/distribution_matching.h"

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/distillation/divergences.h"
#include "atelier/distillation/health.h"

namespace atelier::distillation {

namespace {

constexpr std::size_t fake_score_learner = 0;  // the place of the fake score in learners()
constexpr std::int64_t max_inner_steps =
    1024;                                 // each inner step of a step has its own stream index
constexpr std::int64_t last_level = 999;  // of 1000 Karras levels
constexpr std::int64_t first_matching = 20, last_matching = 980;
constexpr double normaliser_eps = 1e-6;    // FastGen's; DMD2 has none and drops non-finite values
constexpr double weight_smoothing = 0.05;  // of the balanced GAN weight, per update

}  // namespace

Tensor distribution_matching_gradient(const Tensor& x, const Tensor& real, const Tensor& fake) {
    const Tensor size = (x - real).abs().flatten(1).mean(1) + normaliser_eps;
    return ((fake - real) / diffusion::expand_like(size, x)).nan_to_num(0.0, 0.0, 0.0);
}

Tensor loss_with_gradient(const Tensor& x, const Tensor& gradient) {
    return 0.5 * (x - (x - gradient).detach()).square().mean();
}

DistributionMatching::DistributionMatching(MatchingInputs inputs, MatchingSettings settings,
                                           StageContext context)
    : inputs_(std::move(inputs)),
      settings_(std::move(settings)),
      context_(std::move(context)),
      conditions_(inputs_.conditions.value_or(
          diffusion::ConditionTable::classes(inputs_.student_network.label_dim))),
      classes_(inputs_.prior),
      levels_(context_.noise.matching_levels()) {
    gan_weight_ = settings_.adversarial ? settings_.adversarial->gan_weight.value_or(0.0) : 0.0;
    if (settings_.fake_updates >= max_inner_steps)
        core::fail("fake_updates must be below {}", max_inner_steps);
    if (inputs_.real) health_real_ = inputs_.real(0).samples;
    else if (settings_.adversarial) core::fail("a GAN head needs real samples");
}

std::vector<Learner> DistributionMatching::learners() {
    return {{"fake_score", &inputs_.fake, settings_.fake, settings_.fake_updates,
             std::max<std::int64_t>(0, settings_.critic_warmup)},
            {"student", &inputs_.student, settings_.student, 1}};
}

diffusion::EdmDenoiser DistributionMatching::fake_score() const {
    return {inputs_.fake_network, inputs_.fake, context_.noise, context_.compute};
}

core::RandomStream DistributionMatching::stream(const std::string& what, std::int64_t step,
                                                std::int64_t inner_step) const {
    return {context_.seed, context_.stream + "/" + what,
            static_cast<std::uint64_t>(step * max_inner_steps + inner_step)};
}

Tensor DistributionMatching::sample(const backends::Parameters& weights, const Tensor& noise,
                                    const diffusion::Condition& condition) const {
    const diffusion::EdmDenoiser student(inputs_.student_network, weights, context_.noise,
                                         context_.compute);
    return diffusion::sample_one_step(student, noise, context_.noise, condition);
}

DistributionMatching::Start DistributionMatching::draw_start(const std::string& learner,
                                                             std::int64_t step,
                                                             std::int64_t inner_step) const {
    std::vector<std::int64_t> shape{settings_.batch};
    shape.insert(shape.end(), inputs_.student_network.data_shape.begin(),
                 inputs_.student_network.data_shape.end());
    core::RandomStream values = stream(learner + "/noise", step, inner_step);
    Start start{diffusion::normal_tensor(values, shape).to(device()), {}};
    const auto first =
        static_cast<std::uint64_t>((step * max_inner_steps + inner_step) * settings_.batch);
    for (std::int64_t i = 0; i < settings_.batch; ++i) {
        start.labels.push_back(classes_.at(context_.seed + core::fnv1a(learner),
                                           first + static_cast<std::uint64_t>(i)));
    }
    return start;
}

DistributionMatching::Noise DistributionMatching::draw_noise(const std::string& what,
                                                             std::int64_t step,
                                                             std::int64_t inner_step,
                                                             std::int64_t first,
                                                             std::int64_t last) const {
    std::vector<std::int64_t> shape{settings_.batch};
    shape.insert(shape.end(), inputs_.student_network.data_shape.begin(),
                 inputs_.student_network.data_shape.end());
    core::RandomStream levels = stream(what + "/sigma", step, inner_step),
                       added = stream(what + "/added", step, inner_step);
    return {diffusion::indexed_levels(levels, settings_.batch, levels_, first, last).to(device()),
            diffusion::normal_tensor(added, shape).to(device())};
}

DistributionMatching::FakeDraws DistributionMatching::draw_fake(std::int64_t step,
                                                                std::int64_t inner_step) const {
    FakeDraws draws{draw_start("fake", step, inner_step),
                    draw_noise("fake", step, inner_step, 0, last_level), std::nullopt};
    if (!settings_.adversarial) return draws;
    draws.real = inputs_.real(step * settings_.fake_updates + inner_step);
    draws.real_noise =
        draw_noise("head_real", step, inner_step, 0, settings_.adversarial->highest_level);
    return draws;
}

DistributionMatching::StudentDraws DistributionMatching::draw_student(std::int64_t step) const {
    StudentDraws draws{draw_start("student", step, 0),
                       draw_noise("student", step, 0, first_matching, last_matching)};
    if (settings_.adversarial)
        draws.gan_noise =
            draw_noise("student_gan", step, 0, 0, settings_.adversarial->highest_level);
    if (settings_.uses_pairs()) draws.pairs = inputs_.pairs(step);
    return draws;
}

DistributionMatching::Generated DistributionMatching::generate(const Start& start,
                                                               const MicroBatch& rows) const {
    const diffusion::Condition condition = conditions_.of(rows.of(start.labels), device());
    return {sample(inputs_.student, rows.of(start.noise), condition), condition};
}

/// `x` are the rows of the micro-batch, `noise` that of the whole batch.
DistributionMatching::Noised DistributionMatching::noised(const Tensor& x, const Noise& noise,
                                                          const MicroBatch& rows) {
    const Tensor sigma = rows.of(noise.sigma);
    return {x + diffusion::expand_like(sigma, x) * rows.of(noise.added), sigma};
}

Loss DistributionMatching::loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
                                std::int64_t micro_batch) {
    const MicroBatch rows = micro_batch_of(settings_.batch, settings_.micro_batch, micro_batch);
    Loss loss =
        index == fake_score_learner
            ? fake_loss(
                  fake_draws_.of(step, inner_step, [&] { return draw_fake(step, inner_step); }),
                  rows)
            : student_loss(student_draws_.of(step, inner_step, [&] { return draw_student(step); }),
                           rows);
    loss.weight = rows.weight;
    return loss;
}

/// What an update of the student learned about the GAN's weight applies from then on.
void DistributionMatching::finish_update(std::size_t index) {
    if (index == fake_score_learner || !student_draws_.last()) return;
    gan_weight_ = student_draws_.last()->gan_weight.value_or(gan_weight_);
}

/// The balanced weight of the GAN's loss.
bool DistributionMatching::has_value_of_first_micro_batch(std::size_t index) const {
    return index != fake_score_learner && settings_.adversarial &&
           !settings_.adversarial->gan_weight;
}

/// The fake score learns to denoise the student's current samples: mean(w (D_fake(x_t) - x)^2).
Loss DistributionMatching::fake_loss(const FakeDraws& draws, const MicroBatch& rows) const {
    Generated generated;
    {
        at::NoGradGuard no_gradients;
        generated = generate(draws.start, rows);
    }
    const Noised at = noised(generated.x, draws.noise, rows);
    const Tensor weight = diffusion::expand_like(context_.noise.loss_weight(at.sigma), generated.x);
    const auto denoised = fake_score().denoise_and_encode(at.x_t, at.sigma, generated.condition);
    const Tensor denoising = (weight * (denoised.estimate - generated.x).square()).mean();
    Loss loss{denoising, {{"fake_loss", denoising.item<double>()}}};
    if (settings_.adversarial) add_discriminator(loss, denoised.bottleneck, draws, rows);
    return loss;
}

/// The samples whose noise level is within the head's range; all, if none of the batch is. `sigma`:
/// of the whole batch.
DistributionMatching::HeadSamples DistributionMatching::head_samples(const Tensor& sigma,
                                                                     const MicroBatch& rows) const {
    const double highest = levels_[static_cast<std::size_t>(settings_.adversarial->highest_level)];
    const Tensor low = sigma <= highest * (1 + 1e-6);
    const std::int64_t of_batch = low.sum().item<std::int64_t>();
    if (of_batch == 0) return {at::arange(rows.count, sigma.options().dtype(at::kLong)), 1.0};
    const Tensor chosen = at::nonzero(rows.of(low)).flatten();
    const double fraction = static_cast<double>(chosen.numel()) / static_cast<double>(of_batch);
    return {chosen, fraction / rows.weight};
}

/// Generated samples are classified at the levels at which the fake score denoised them, as far as
/// these are within the head's range: the distribution is the same, and half an evaluation is
/// saved.
void DistributionMatching::add_discriminator(Loss& loss, const Tensor& bottleneck_of_fake,
                                             const FakeDraws& draws, const MicroBatch& rows) const {
    const AdversarialSettings& gan = *settings_.adversarial;
    const Tensor real = rows.of(draws.real->samples).to(device());
    const diffusion::Condition real_condition =
        conditions_.of(rows.of(draws.real->labels), real.device());
    Noised noised_real = noised(real, draws.real_noise, rows);
    if (gan.r1_weight > 0) noised_real.x_t.set_requires_grad(true);

    const diffusion::EdmDenoiser fake = fake_score();
    const BottleneckDiscriminator head(fake, inputs_.fake);
    const HeadSamples fake_samples = head_samples(draws.noise.sigma, rows);
    const Tensor on_fake = head.logits(bottleneck_of_fake.index_select(0, fake_samples.rows));
    const backends::DoubleBackwardGuard twice_differentiable(gan.r1_weight > 0);
    const Tensor on_real = head.logits(noised_real.x_t, noised_real.sigma, real_condition);
    loss.value = loss.value + gan.discriminator_weight *
                                  discriminator_loss(on_real, on_fake, fake_samples.weight);
    if (gan.r1_weight > 0)
        loss.value = loss.value + gan.r1_weight * r1_penalty(on_real, noised_real.x_t);
    loss.metrics.emplace_back("real_logit", on_real.mean().item<double>());
    if (on_fake.numel() > 0) loss.metrics.emplace_back("fake_logit", on_fake.mean().item<double>());
}

Tensor DistributionMatching::matching_gradient(const Generated& generated, const Noised& at,
                                               Metrics& metrics) const {
    at::NoGradGuard no_gradients;
    const diffusion::EdmDenoiser fake_model = fake_score();
    const Tensor real = inputs_.teacher.denoise(at.x_t, at.sigma, generated.condition);
    const auto denoised = fake_model.denoise_and_encode(at.x_t, at.sigma, generated.condition);
    const Tensor& fake = denoised.estimate;
    // A fake score that follows the student closely denoises its samples at least as well as the
    // teacher does.
    metrics.emplace_back(
        "fake_lag", ((fake - generated.x).square().mean() / (real - generated.x).square().mean())
                        .item<double>());
    const Tensor gradient = distribution_matching_gradient(generated.x, real, fake);
    if (!settings_.adversarial || settings_.adversarial->divergence == "reverse_kl")
        return gradient;
    const Tensor logits =
        BottleneckDiscriminator(fake_model, inputs_.fake).logits(denoised.bottleneck);
    return diffusion::expand_like(divergence_weight(settings_.adversarial->divergence, logits),
                                  gradient) *
           gradient;
}

/// SiD (Zhou et al. 2024): (real - fake) . ((real - x) - a (real - fake)) over the normaliser,
/// gradients through both networks.
Tensor DistributionMatching::score_identity_loss(const Generated& generated,
                                                 const Noised& at) const {
    const Tensor real = inputs_.teacher.denoise(at.x_t, at.sigma, generated.condition);
    const Tensor fake = fake_score().denoise(at.x_t, at.sigma, generated.condition);
    const Tensor size = ((generated.x - real).abs().flatten(1).mean(1) + normaliser_eps).detach();
    const Tensor gap = real - fake;
    return (gap * ((real - generated.x) - settings_.sid_alpha * gap) /
            diffusion::expand_like(size, gap))
        .mean();
}

Loss DistributionMatching::student_loss(StudentDraws& draws, const MicroBatch& rows) const {
    const Generated generated = generate(draws.start, rows);
    const bool identity = settings_.loss == MatchingLoss::score_identity;
    const Tensor source = identity ? generated.x : generated.x.detach();
    const Noised at = noised(source, draws.noise, rows);
    Loss loss;
    Tensor dm_gradient;  // d loss / d x, for the log and the GAN balance
    if (identity) {
        loss.value = score_identity_loss(generated, at);
        dm_gradient =
            torch::autograd::grad({loss.value}, {generated.x}, {}, /*retain_graph=*/true)[0];
    } else {
        const Tensor gradient = matching_gradient(generated, at, loss.metrics);
        loss.value = loss_with_gradient(generated.x, gradient);
        dm_gradient = gradient / static_cast<double>(gradient.numel());
    }
    loss.metrics.emplace_back("student_loss", loss.value.item<double>());
    loss.metrics.emplace_back("dm_gradient", dm_gradient.norm().item<double>());
    if (settings_.adversarial) add_gan(loss, generated, dm_gradient, draws, rows);
    if (draws.pairs) add_regression(loss, *draws.pairs, rows);
    return loss;
}

void DistributionMatching::add_gan(Loss& loss, const Generated& generated,
                                   const Tensor& dm_gradient, StudentDraws& draws,
                                   const MicroBatch& rows) const {
    const AdversarialSettings& gan = *settings_.adversarial;
    const Noised at = noised(generated.x, draws.gan_noise, rows);
    const diffusion::EdmDenoiser fake = fake_score();
    const Tensor value = generator_gan_loss(
        BottleneckDiscriminator(fake, inputs_.fake).logits(at.x_t, at.sigma, generated.condition));
    // In float16 the gradient of a mean over many samples would underflow.
    const double scale = context_.compute.type == at::kHalf ? static_cast<double>(rows.count) : 1.0;
    const Tensor gan_gradient =
        torch::autograd::grad({value * scale}, {generated.x}, {}, /*retain_graph=*/true)[0] / scale;
    const double norm = gan_gradient.norm().item<double>();
    if (!gan.gan_weight && !draws.gan_weight) {
        const double balanced =
            gan.gan_balance * dm_gradient.norm().item<double>() / (norm + 1e-12);
        draws.gan_weight = of_first_micro_batch(
            gan_weight_ == 0 ? balanced
                             : gan_weight_ + weight_smoothing * (balanced - gan_weight_));
    }
    const double weight = draws.gan_weight.value_or(gan_weight_);
    // The gradient on the samples is already known, so the head's graph is not traversed again.
    loss.value = loss.value + weight * (generated.x * gan_gradient.detach()).sum();
    loss.metrics.emplace_back("gan_loss", value.item<double>());
    loss.metrics.emplace_back("gan_gradient", weight * norm);
    loss.metrics.emplace_back("gan_weight", weight);
}

void DistributionMatching::add_regression(Loss& loss, const PairBatch& batch,
                                          const MicroBatch& rows) const {
    const Tensor generated = sample(inputs_.student, rows.of(batch.noise).to(device()),
                                    conditions_.of(rows.of(batch.labels), device()));
    const Tensor value = inputs_.regression(generated, rows.of(batch.samples).to(device()));
    loss.value = loss.value + settings_.regression_weight * value;
    loss.metrics.emplace_back("regression", value.item<double>());
}

std::vector<Finding> DistributionMatching::health(Metrics& metrics, const Tensor& probe) {
    if (!health_real_.defined())
        health_real_ =
            diffusion::image_noise(context_.seed, 0, probe.size(0), probe.sizes().slice(1));
    ProbeStatistics statistics = probe_statistics(probe, health_real_.to(probe.device()));
    statistics.was_diverse = highest_diversity_ >= min_diversity;
    highest_diversity_ = std::max(highest_diversity_, statistics.diversity);
    metrics.emplace_back("saturation", statistics.saturation);
    metrics.emplace_back("diversity", statistics.diversity);
    return judge(metrics, statistics);
}

}  // namespace atelier::distillation
