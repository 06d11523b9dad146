#include "atelier/distillation/distribution_matching.h"

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/diffusion/preconditioning.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/distillation/divergences.h"
#include "atelier/distillation/health.h"
#include "atelier/ops/fused_norm.h"

namespace atelier::distillation {

namespace {

constexpr std::int64_t most_turns = 1024;                   // turns of a step have stream indices of their own
constexpr std::int64_t last_level = 999;                    // of 1000 Karras levels
constexpr std::int64_t first_matching = 20, last_matching = 980;
constexpr double normaliser_eps = 1e-6;                     // FastGen's; DMD2 has none and drops what is not finite
constexpr double weight_smoothing = 0.05;                   // of the balanced GAN weight, an update

}  // namespace

Tensor distribution_matching_gradient(const Tensor& x, const Tensor& real, const Tensor& fake) {
    const Tensor size = (x - real).abs().flatten(1).mean(1) + normaliser_eps;
    return ((fake - real) / diffusion::along(size, x)).nan_to_num(0.0, 0.0, 0.0);
}

Tensor loss_with_gradient(const Tensor& x, const Tensor& gradient) {
    return 0.5 * (x - (x - gradient).detach()).square().mean();
}

DistributionMatching::DistributionMatching(MatchingParts parts, MatchingSettings settings)
    : parts_(std::move(parts)), settings_(std::move(settings)), conditions_(parts_.conditions.value_or(diffusion::ConditionTable::classes(parts_.student_network.classes))),
      drawn_(parts_.prior), levels_(diffusion::matching_levels(settings_.scheme, settings_.range)) {
    gan_weight_ = settings_.adversarial ? settings_.adversarial->gan_weight.value_or(0.0) : 0.0;
    if (settings_.fake_updates >= most_turns) core::fail("fake_updates must be below {}", most_turns);
    if (parts_.real) health_real_ = parts_.real(0).samples;
    else if (settings_.adversarial) core::fail("a GAN head needs real samples");
}

std::vector<Learner> DistributionMatching::learners() {
    return {{"fake_score", &parts_.fake, settings_.fake, settings_.fake_updates, settings_.critic_warmup},
            {"student", &parts_.student, settings_.student, 1}};
}

diffusion::EdmDenoiser DistributionMatching::fake_score() const {
    return {parts_.fake_network, parts_.fake, settings_.scheme, settings_.compute};
}

core::RandomStream DistributionMatching::stream(const std::string& what, std::int64_t step, std::int64_t turn) const {
    return {settings_.seed, settings_.stream + "/" + what, static_cast<std::uint64_t>(step * most_turns + turn)};
}

Tensor DistributionMatching::sample(const ops::Parameters& weights, const Tensor& noise, const diffusion::Condition& condition) const {
    const diffusion::EdmDenoiser student(parts_.student_network, weights, settings_.scheme, settings_.compute);
    return diffusion::sample_one_step(student, noise, settings_.range, condition);
}

DistributionMatching::Generated DistributionMatching::generate(const char* learner, std::int64_t step, std::int64_t turn) {
    std::vector<std::int64_t> shape{settings_.batch};
    shape.insert(shape.end(), parts_.student_network.data_shape.begin(), parts_.student_network.data_shape.end());
    const at::Device device = parts_.student.list().front().device();
    const Tensor& noise = draws_.once("generated", [&] {
        core::RandomStream numbers = stream(std::string(learner) + "/noise", step, turn);
        return diffusion::normal_tensor(numbers, shape).to(device);
    });
    const auto first = static_cast<std::uint64_t>((step * most_turns + turn) * settings_.batch + rows_.first);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < rows_.count; ++i) {
        labels.push_back(drawn_.at(settings_.seed + core::fnv1a(learner), first + static_cast<std::uint64_t>(i)));
    }
    const diffusion::Condition condition = conditions_.of(labels, device);
    return {sample(parts_.student, rows_.of(noise), condition), condition};
}

DistributionMatching::Noised DistributionMatching::noised(const Tensor& x, const std::string& what, std::int64_t step, std::int64_t turn,
                                                          std::int64_t first, std::int64_t last) {
    const Tensor& sigma = draws_.once(what + "/sigma", [&] {
        core::RandomStream levels = stream(what + "/sigma", step, turn);
        return diffusion::indexed_levels(levels, settings_.batch, levels_, first, last).to(x.device());
    });
    const Tensor& added = draws_.once(what + "/added", [&] {
        core::RandomStream noise = stream(what + "/added", step, turn);
        std::vector<std::int64_t> shape = x.sizes().vec();
        shape.front() = settings_.batch;
        return diffusion::normal_tensor(noise, shape).to(x.device());
    });
    return {x + diffusion::along(rows_.of(sigma), x) * rows_.of(added), rows_.of(sigma)};
}

Loss DistributionMatching::loss(std::size_t index, std::int64_t step, std::int64_t turn, std::int64_t part) {
    draws_.begin(index, step, turn);
    rows_ = rows_of(settings_.batch, settings_.micro_batch, part);
    Loss loss = index == 0 ? fake_loss(step, turn) : student_loss(step);
    loss.share = rows_.share;
    return loss;
}

/// The fake score learns to denoise what the student makes now: mean(w (D_fake(x_t) - x)^2).
Loss DistributionMatching::fake_loss(std::int64_t step, std::int64_t turn) {
    Generated generated;
    {
        at::NoGradGuard no_gradients;
        generated = generate("fake", step, turn);
    }
    const Noised at = noised(generated.x, "fake", step, turn, 0, last_level);
    const Tensor weight = diffusion::along(diffusion::denoising_weight(at.sigma, settings_.scheme), generated.x);
    const auto seen = fake_score().denoise_and_encode(at.x_t, at.sigma, generated.condition);
    const Tensor denoising = (weight * (seen.estimate - generated.x).square()).mean();
    Loss loss{denoising, {{"fake_loss", denoising.item<double>()}}};
    if (settings_.adversarial) add_discriminator(loss, seen.bottleneck, at.sigma, step, turn);
    return loss;
}

/// Those whose noise the head may see; all, where that is none of the batch.
DistributionMatching::Judged DistributionMatching::judged(const Tensor& sigma) {
    const double highest = levels_[static_cast<std::size_t>(settings_.adversarial->highest_level)];
    const auto low = [&](const Tensor& levels) { return levels <= highest * (1 + 1e-6); };
    const Tensor& whole = draws_.once("fake/sigma", [&] { return sigma; });
    const std::int64_t of_batch = low(whole).sum().item<std::int64_t>();
    if (of_batch == 0) return {at::arange(sigma.size(0), sigma.options().dtype(at::kLong)), 1.0};
    const Tensor within = at::nonzero(low(sigma)).flatten();
    const double mine = static_cast<double>(within.numel()) / static_cast<double>(of_batch);
    return {within, mine / rows_.share};
}

/// The head judges the generated samples where the fake score denoised them, as far as their levels are the head's: the distribution is the
/// same, and half an evaluation is saved.
void DistributionMatching::add_discriminator(Loss& loss, const Tensor& bottleneck_of_fake, const Tensor& sigma, std::int64_t step,
                                             std::int64_t turn) {
    const AdversarialSettings& gan = *settings_.adversarial;
    const LabelledBatch& batch = draws_.once("real", [&] { return parts_.real(step * settings_.fake_updates + turn); });
    const Tensor real = rows_.of(batch.samples).to(bottleneck_of_fake.device());
    const diffusion::Condition real_condition = conditions_.of(rows_.of(batch.labels), real.device());
    Noised of_real = noised(real, "head_real", step, turn, 0, gan.highest_level);
    if (gan.r1_weight > 0) of_real.x_t.set_requires_grad(true);

    const diffusion::EdmDenoiser fake = fake_score();
    const BottleneckDiscriminator head(fake, parts_.fake);
    const Judged fakes = judged(sigma);
    const Tensor on_fake = head.logits(bottleneck_of_fake.index_select(0, fakes.within));
    const ops::NormFromParts twice_differentiable(gan.r1_weight > 0);
    const Tensor on_real = head.logits(of_real.x_t, of_real.sigma, real_condition);
    loss.value = loss.value + gan.discriminator_weight * discriminator_loss(on_real, on_fake, fakes.weight);
    if (gan.r1_weight > 0) loss.value = loss.value + gan.r1_weight * r1_penalty(on_real, of_real.x_t);
    loss.metrics.emplace_back("real_logit", on_real.mean().item<double>());
    if (on_fake.numel() > 0) loss.metrics.emplace_back("fake_logit", on_fake.mean().item<double>());
}

Tensor DistributionMatching::matching_gradient(const Generated& generated, const Noised& at, Metrics& metrics) const {
    at::NoGradGuard no_gradients;
    const diffusion::EdmDenoiser fake_model = fake_score();
    const Tensor real = parts_.teacher.denoise(at.x_t, at.sigma, generated.condition);
    const auto seen = fake_model.denoise_and_encode(at.x_t, at.sigma, generated.condition);
    const Tensor& fake = seen.estimate;
    // A fake score that knows the student well denoises its samples at least as well as the teacher does.
    metrics.emplace_back("fake_lag", ((fake - generated.x).square().mean() / (real - generated.x).square().mean()).item<double>());
    const Tensor gradient = distribution_matching_gradient(generated.x, real, fake);
    if (!settings_.adversarial || settings_.adversarial->divergence == "reverse_kl") return gradient;
    const Tensor logits = BottleneckDiscriminator(fake_model, parts_.fake).logits(seen.bottleneck);
    return diffusion::along(divergence_weight(settings_.adversarial->divergence, logits), gradient) * gradient;
}

/// SiD (Zhou et al. 2024): (real - fake) . ((real - x) - a (real - fake)) over the normaliser, gradients through both networks.
Tensor DistributionMatching::score_identity_loss(const Generated& generated, const Noised& at) const {
    const Tensor real = parts_.teacher.denoise(at.x_t, at.sigma, generated.condition);
    const Tensor fake = fake_score().denoise(at.x_t, at.sigma, generated.condition);
    const Tensor size = ((generated.x - real).abs().flatten(1).mean(1) + normaliser_eps).detach();
    const Tensor gap = real - fake;
    return (gap * ((real - generated.x) - settings_.sid_alpha * gap) / diffusion::along(size, gap)).mean();
}

Loss DistributionMatching::student_loss(std::int64_t step) {
    const Generated generated = generate("student", step, 0);
    const bool identity = settings_.score_identity;
    const Tensor source = identity ? generated.x : generated.x.detach();
    const Noised at = noised(source, "student", step, 0, first_matching, last_matching);
    Loss loss;
    Tensor slope;  // d loss / d x, for the log and the balance
    if (identity) {
        loss.value = score_identity_loss(generated, at);
        slope = torch::autograd::grad({loss.value}, {generated.x}, {}, /*retain_graph=*/true)[0];
    } else {
        const Tensor gradient = matching_gradient(generated, at, loss.metrics);
        loss.value = loss_with_gradient(generated.x, gradient);
        slope = gradient / static_cast<double>(gradient.numel());
    }
    loss.metrics.emplace_back("student_loss", loss.value.item<double>());
    loss.metrics.emplace_back("dm_gradient", slope.norm().item<double>());
    if (settings_.adversarial) add_gan(loss, generated, slope, step);
    if (settings_.regression_weight > 0) add_regression(loss, step);
    return loss;
}

void DistributionMatching::add_gan(Loss& loss, const Generated& generated, const Tensor& matching_slope, std::int64_t step) {
    const AdversarialSettings& gan = *settings_.adversarial;
    const Noised at = noised(generated.x, "student_gan", step, 0, 0, gan.highest_level);
    const diffusion::EdmDenoiser fake = fake_score();
    const Tensor value = generator_gan_loss(BottleneckDiscriminator(fake, parts_.fake).logits(at.x_t, at.sigma, generated.condition));
    // In float16 the slope of a mean over many samples would be lost among zeros.
    const double lift = settings_.compute.type == at::kHalf ? static_cast<double>(rows_.count) : 1.0;
    const Tensor slope = torch::autograd::grad({value * lift}, {generated.x}, {}, /*retain_graph=*/true)[0] / lift;
    const double norm = slope.norm().item<double>();
    if (!gan.gan_weight && rows_.first == 0) {
        const double wanted = gan.gan_balance * matching_slope.norm().item<double>() / (norm + 1e-12);
        gan_weight_ = gan_weight_ == 0 ? wanted : gan_weight_ + weight_smoothing * (wanted - gan_weight_);
    }
    // The gradient on the samples is known already, so the graph behind the head need not be walked a second time.
    loss.value = loss.value + gan_weight_ * (generated.x * slope.detach()).sum();
    loss.metrics.emplace_back("gan_loss", value.item<double>());
    loss.metrics.emplace_back("gan_gradient", gan_weight_ * norm);
    loss.metrics.emplace_back("gan_weight", gan_weight_);
}

void DistributionMatching::add_regression(Loss& loss, std::int64_t step) {
    const PairBatch& batch = draws_.once("pairs", [&] { return parts_.pairs(step); });
    const at::Device device = parts_.student.list().front().device();
    const Tensor made = sample(parts_.student, rows_.of(batch.noise).to(device), conditions_.of(rows_.of(batch.labels), device));
    const Tensor value = parts_.regression(made, rows_.of(batch.samples).to(device));
    loss.value = loss.value + settings_.regression_weight * value;
    loss.metrics.emplace_back("regression", value.item<double>());
}

std::vector<Finding> DistributionMatching::health(Metrics& metrics, const Tensor& probe) {
    if (!health_real_.defined()) health_real_ = diffusion::image_noise(settings_.seed, 0, probe.size(0), probe.sizes().slice(1));
    ProbeReading reading = read_probe(probe, health_real_.to(probe.device()));
    reading.was_diverse = highest_diversity_ >= least_diversity;
    highest_diversity_ = std::max(highest_diversity_, reading.diversity);
    metrics.emplace_back("saturation", reading.saturation);
    metrics.emplace_back("diversity", reading.diversity);
    return judge(metrics, reading);
}

}  // namespace atelier::distillation
