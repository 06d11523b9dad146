#include "atelier/distillation/distribution_matching.h"

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/distillation/divergences.h"
#include "atelier/distillation/health.h"

namespace atelier::distillation {

namespace {

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

DistributionMatching::Generated DistributionMatching::generate(const char* learner,
                                                               std::int64_t step,
                                                               std::int64_t inner_step) {
    std::vector<std::int64_t> shape{settings_.batch};
    shape.insert(shape.end(), inputs_.student_network.data_shape.begin(),
                 inputs_.student_network.data_shape.end());
    const at::Device device = inputs_.student.list().front().device();
    const Tensor& noise = draws_.once("generated", [&] {
        core::RandomStream values = stream(std::string(learner) + "/noise", step, inner_step);
        return diffusion::normal_tensor(values, shape).to(device);
    });
    const auto first = static_cast<std::uint64_t>(
        (step * max_inner_steps + inner_step) * settings_.batch + micro_batch_.first);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < micro_batch_.count; ++i) {
        labels.push_back(classes_.at(context_.seed + core::fnv1a(learner),
                                     first + static_cast<std::uint64_t>(i)));
    }
    const diffusion::Condition condition = conditions_.of(labels, device);
    return {sample(inputs_.student, micro_batch_.of(noise), condition), condition};
}

DistributionMatching::Noised DistributionMatching::noised(const Tensor& x, const std::string& what,
                                                          std::int64_t step,
                                                          std::int64_t inner_step,
                                                          std::int64_t first, std::int64_t last) {
    const Tensor& sigma = draws_.once(what + "/sigma", [&] {
        core::RandomStream levels = stream(what + "/sigma", step, inner_step);
        return diffusion::indexed_levels(levels, settings_.batch, levels_, first, last)
            .to(x.device());
    });
    const Tensor& added = draws_.once(what + "/added", [&] {
        core::RandomStream noise = stream(what + "/added", step, inner_step);
        std::vector<std::int64_t> shape = x.sizes().vec();
        shape.front() = settings_.batch;
        return diffusion::normal_tensor(noise, shape).to(x.device());
    });
    return {x + diffusion::expand_like(micro_batch_.of(sigma), x) * micro_batch_.of(added),
            micro_batch_.of(sigma)};
}

Loss DistributionMatching::loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
                                std::int64_t micro_batch) {
    draws_.begin(index, step, inner_step);
    micro_batch_ = micro_batch_of(settings_.batch, settings_.micro_batch, micro_batch);
    Loss loss = index == 0 ? fake_loss(step, inner_step) : student_loss(step);
    loss.weight = micro_batch_.weight;
    return loss;
}

/// The fake score learns to denoise the student's current samples: mean(w (D_fake(x_t) - x)^2).
Loss DistributionMatching::fake_loss(std::int64_t step, std::int64_t inner_step) {
    Generated generated;
    {
        at::NoGradGuard no_gradients;
        generated = generate("fake", step, inner_step);
    }
    const Noised at = noised(generated.x, "fake", step, inner_step, 0, last_level);
    const Tensor weight = diffusion::expand_like(context_.noise.loss_weight(at.sigma), generated.x);
    const auto denoised = fake_score().denoise_and_encode(at.x_t, at.sigma, generated.condition);
    const Tensor denoising = (weight * (denoised.estimate - generated.x).square()).mean();
    Loss loss{denoising, {{"fake_loss", denoising.item<double>()}}};
    if (settings_.adversarial)
        add_discriminator(loss, denoised.bottleneck, at.sigma, step, inner_step);
    return loss;
}

/// The samples whose noise level is within the head's range; all, if none of the batch is.
DistributionMatching::HeadSamples DistributionMatching::head_samples(const Tensor& sigma) {
    const double highest = levels_[static_cast<std::size_t>(settings_.adversarial->highest_level)];
    const auto low = [&](const Tensor& levels) { return levels <= highest * (1 + 1e-6); };
    const Tensor& whole = draws_.once("fake/sigma", [&] { return sigma; });
    const std::int64_t of_batch = low(whole).sum().item<std::int64_t>();
    if (of_batch == 0) return {at::arange(sigma.size(0), sigma.options().dtype(at::kLong)), 1.0};
    const Tensor rows = at::nonzero(low(sigma)).flatten();
    const double fraction = static_cast<double>(rows.numel()) / static_cast<double>(of_batch);
    return {rows, fraction / micro_batch_.weight};
}

/// Generated samples are classified at the levels at which the fake score denoised them, as far as
/// these are within the head's range: the distribution is the same, and half an evaluation is
/// saved.
void DistributionMatching::add_discriminator(Loss& loss, const Tensor& bottleneck_of_fake,
                                             const Tensor& sigma, std::int64_t step,
                                             std::int64_t inner_step) {
    const AdversarialSettings& gan = *settings_.adversarial;
    const LabelledBatch& batch = draws_.once(
        "real", [&] { return inputs_.real(step * settings_.fake_updates + inner_step); });
    const Tensor real = micro_batch_.of(batch.samples).to(bottleneck_of_fake.device());
    const diffusion::Condition real_condition =
        conditions_.of(micro_batch_.of(batch.labels), real.device());
    Noised noised_real = noised(real, "head_real", step, inner_step, 0, gan.highest_level);
    if (gan.r1_weight > 0) noised_real.x_t.set_requires_grad(true);

    const diffusion::EdmDenoiser fake = fake_score();
    const BottleneckDiscriminator head(fake, inputs_.fake);
    const HeadSamples fake_samples = head_samples(sigma);
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

Loss DistributionMatching::student_loss(std::int64_t step) {
    const Generated generated = generate("student", step, 0);
    const bool identity = settings_.loss == MatchingLoss::score_identity;
    const Tensor source = identity ? generated.x : generated.x.detach();
    const Noised at = noised(source, "student", step, 0, first_matching, last_matching);
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
    if (settings_.adversarial) add_gan(loss, generated, dm_gradient, step);
    if (settings_.uses_pairs()) add_regression(loss, step);
    return loss;
}

void DistributionMatching::add_gan(Loss& loss, const Generated& generated,
                                   const Tensor& dm_gradient, std::int64_t step) {
    const AdversarialSettings& gan = *settings_.adversarial;
    const Noised at = noised(generated.x, "student_gan", step, 0, 0, gan.highest_level);
    const diffusion::EdmDenoiser fake = fake_score();
    const Tensor value = generator_gan_loss(
        BottleneckDiscriminator(fake, inputs_.fake).logits(at.x_t, at.sigma, generated.condition));
    // In float16 the gradient of a mean over many samples would underflow.
    const double scale =
        context_.compute.type == at::kHalf ? static_cast<double>(micro_batch_.count) : 1.0;
    const Tensor gan_gradient =
        torch::autograd::grad({value * scale}, {generated.x}, {}, /*retain_graph=*/true)[0] / scale;
    const double norm = gan_gradient.norm().item<double>();
    if (!gan.gan_weight && micro_batch_.first == 0) {
        const double balanced =
            gan.gan_balance * dm_gradient.norm().item<double>() / (norm + 1e-12);
        gan_weight_ =
            gan_weight_ == 0 ? balanced : gan_weight_ + weight_smoothing * (balanced - gan_weight_);
    }
    // The gradient on the samples is already known, so the head's graph is not traversed again.
    loss.value = loss.value + gan_weight_ * (generated.x * gan_gradient.detach()).sum();
    loss.metrics.emplace_back("gan_loss", value.item<double>());
    loss.metrics.emplace_back("gan_gradient", gan_weight_ * norm);
    loss.metrics.emplace_back("gan_weight", gan_weight_);
}

void DistributionMatching::add_regression(Loss& loss, std::int64_t step) {
    const PairBatch& batch = draws_.once("pairs", [&] { return inputs_.pairs(step); });
    const at::Device device = inputs_.student.list().front().device();
    const Tensor generated = sample(inputs_.student, micro_batch_.of(batch.noise).to(device),
                                    conditions_.of(micro_batch_.of(batch.labels), device));
    const Tensor value = inputs_.regression(generated, micro_batch_.of(batch.samples).to(device));
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
