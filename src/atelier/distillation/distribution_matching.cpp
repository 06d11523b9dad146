#include "atelier/distillation/distribution_matching.h"

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/backends/torch/transfer.h"
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
      levels_(context_.noise.matching_levels()),
      student_levels_(context_.noise.student_levels(settings_.student_steps)) {
    gan_weight_ = settings_.adversarial ? settings_.adversarial->gan_weight.value_or(0.0) : 0.0;
    if (settings_.fake_updates >= max_inner_steps)
        core::fail("fake_updates must be below {}", max_inner_steps);
    if (inputs_.real) health_real_ = inputs_.real(0).samples;
    else if (settings_.adversarial) core::fail("a GAN head needs real samples");
}

std::vector<Learner> DistributionMatching::learners() {
    return {{"fake_score", &inputs_.fake, settings_.fake, settings_.fake_updates,
             std::max<std::int64_t>(0, settings_.critic_warmup), context_.compute.type},
            {"student", &inputs_.student, settings_.student, 1, 0, context_.compute.type}};
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
    return diffusion::sample_few_steps(
        student, noise, context_.noise, student_levels_, condition, [&](std::size_t k) {
            const std::uint64_t seed =
                context_.seed + core::fnv1a(fmt::format("{}/step/{}", context_.stream, k));
            return diffusion::image_noise(seed, 0, noise.size(0), noise.sizes().slice(1))
                .to(noise.device());
        });
}

std::vector<std::int64_t> DistributionMatching::draw_labels(const std::string& learner,
                                                            std::int64_t step,
                                                            std::int64_t inner_step) const {
    std::vector<std::int64_t> labels;
    const auto first =
        static_cast<std::uint64_t>((step * max_inner_steps + inner_step) * settings_.batch);
    for (std::int64_t i = 0; i < settings_.batch; ++i) {
        labels.push_back(classes_.at(context_.seed + core::fnv1a(learner),
                                     first + static_cast<std::uint64_t>(i)));
    }
    return labels;
}

DistributionMatching::Levels DistributionMatching::draw_levels(const std::string& what,
                                                               std::int64_t step,
                                                               std::int64_t inner_step,
                                                               std::int64_t first,
                                                               std::int64_t last) const {
    core::RandomStream levels = stream(what + "/sigma", step, inner_step);
    const Tensor sigma = diffusion::indexed_levels(levels, settings_.batch, levels_, first, last);
    return {sigma, backends::to_device(sigma, device())};
}

DistributionMatching::FakeDraws DistributionMatching::draw_fake(std::int64_t step,
                                                                std::int64_t inner_step) const {
    FakeDraws draws{
        .noise = {stream("fake/noise", step, inner_step), stream("fake/added", step, inner_step)},
        .step_noise = draw_step_noise("fake", step, inner_step),
        .labels = draw_labels("fake", step, inner_step),
        .levels = draw_levels("fake", step, inner_step, 0, last_level)};
    if (!settings_.adversarial) return draws;
    draws.noise.push_back(stream("head_real/added", step, inner_step));
    draws.real = inputs_.real(step * settings_.fake_updates + inner_step);
    draws.real_levels =
        draw_levels("head_real", step, inner_step, 0, settings_.adversarial->highest_level);
    return draws;
}

DistributionMatching::StudentDraws DistributionMatching::draw_student(std::int64_t step) const {
    StudentDraws draws{
        .noise = {stream("student/noise", step, 0), stream("student/added", step, 0)},
        .step_noise = draw_step_noise("student", step, 0),
        .labels = draw_labels("student", step, 0),
        .levels = draw_levels("student", step, 0, first_matching, last_matching)};
    if (settings_.adversarial) {
        draws.noise.push_back(stream("student_gan/added", step, 0));
        draws.gan_levels =
            draw_levels("student_gan", step, 0, 0, settings_.adversarial->highest_level);
    }
    if (settings_.uses_pairs()) draws.pairs = inputs_.pairs(step);
    return draws;
}

/// The rows of the streams' noise: what samples are made from, what is added to them, and what is
/// added for the GAN head.
std::vector<Tensor> DistributionMatching::noise_of(const std::vector<core::RandomStream>& streams,
                                                   const MicroBatch& rows) const {
    return diffusion::normal_rows(streams, inputs_.student_network.data_shape, rows.first,
                                  rows.count, device());
}

/// The streams of the noise that is added before each evaluation after the first, up to the one
/// that the update is about, which is drawn from all with equal chances. All ranks and
/// micro-batches of an update take the same, so that none waits for longer samples of another.
std::vector<core::RandomStream> DistributionMatching::draw_step_noise(
    const std::string& learner, std::int64_t step, std::int64_t inner_step) const {
    std::vector<core::RandomStream> streams;
    if (settings_.student_steps == 1) return streams;
    const std::uint64_t last = stream(learner + "/evaluation", step, inner_step)
                                   .below(static_cast<std::uint64_t>(settings_.student_steps));
    for (std::uint64_t k = 1; k <= last; ++k)
        streams.push_back(stream(fmt::format("{}/step/{}", learner, k), step, inner_step));
    return streams;
}

DistributionMatching::Generated DistributionMatching::generate(
    const Tensor& noise, const std::vector<core::RandomStream>& step_noise,
    const std::vector<std::int64_t>& labels, const MicroBatch& rows) const {
    const diffusion::Condition condition = conditions_.of(rows.of(labels), device());
    const diffusion::EdmDenoiser student(inputs_.student_network, inputs_.student, context_.noise,
                                         context_.compute);
    const std::vector<Tensor> added = noise_of(step_noise, rows);
    // The estimate of each evaluation but the last is an input of the next, not a way back.
    Tensor x;
    for (std::size_t k = 0; k <= added.size(); ++k) {
        const at::AutoGradMode gradients(at::GradMode::is_enabled() && k == added.size());
        if (k == 0) {
            x = diffusion::sample_one_step(student, noise, context_.noise, condition);
            continue;
        }
        const Tensor sigma = at::full({x.size(0)}, student_levels_[k], x.options());
        x = student.denoise(x + student_levels_[k] * added[k - 1], sigma, condition);
    }
    return {x, condition};
}

/// `x` and `added` are the rows of the micro-batch, `levels` those of the whole batch.
DistributionMatching::Noised DistributionMatching::noised(const Tensor& x, const Levels& levels,
                                                          const Tensor& added,
                                                          const MicroBatch& rows) {
    const Tensor sigma = rows.of(levels.sigma);
    return {x + diffusion::expand_like(sigma, x) * added, sigma};
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

/// The balanced weight of the GAN's loss.
bool DistributionMatching::has_value_of_first_micro_batch(std::size_t index) const {
    return index != fake_score_learner && settings_.adversarial &&
           !settings_.adversarial->gan_weight;
}

/// The fake score learns to denoise the student's current samples: mean(w (D_fake(x_t) - x)^2).
Loss DistributionMatching::fake_loss(const FakeDraws& draws, const MicroBatch& rows) const {
    const std::vector<Tensor> noise = noise_of(draws.noise, rows);
    Generated generated;
    {
        at::NoGradGuard no_gradients;
        generated = generate(noise[0], draws.step_noise, draws.labels, rows);
    }
    const Noised at = noised(generated.x, draws.levels, noise[1], rows);
    const Tensor weight = diffusion::expand_like(context_.noise.loss_weight(at.sigma), generated.x);
    const auto denoised = fake_score().denoise_and_encode(at.x_t, at.sigma, generated.condition);
    const Tensor denoising = (weight * (denoised.estimate - generated.x).square()).mean();
    Loss loss{denoising, {{"fake_loss", denoising}}};
    if (settings_.adversarial)
        add_discriminator(loss, denoised.bottleneck, draws, noise.back(), rows);
    return loss;
}

/// The samples whose noise level is within the head's range; all, if none of the batch is. `sigma`:
/// of the whole batch, on the CPU, so that their number is known without waiting for a device.
DistributionMatching::HeadSamples DistributionMatching::head_samples(const Tensor& sigma,
                                                                     const MicroBatch& rows) const {
    const double highest = levels_[static_cast<std::size_t>(settings_.adversarial->highest_level)];
    const Tensor low = sigma <= highest * (1 + 1e-6);
    const std::int64_t of_batch = low.sum().item<std::int64_t>();
    const auto on_device = [&](const Tensor& chosen) {
        return backends::to_device(chosen, device());
    };
    if (of_batch == 0) return {on_device(at::arange(rows.count, at::kLong)), 1.0};
    const Tensor chosen = at::nonzero(rows.of(low)).flatten();
    const double fraction = static_cast<double>(chosen.numel()) / static_cast<double>(of_batch);
    return {on_device(chosen), fraction / rows.weight};
}

/// Generated samples are classified at the levels at which the fake score denoised them, as far as
/// these are within the head's range: the distribution is the same, and half an evaluation is
/// saved.
void DistributionMatching::add_discriminator(Loss& loss, const Tensor& bottleneck_of_fake,
                                             const FakeDraws& draws, const Tensor& added_to_real,
                                             const MicroBatch& rows) const {
    const AdversarialSettings& gan = *settings_.adversarial;
    const Tensor real = backends::to_device(rows.of(draws.real->samples), device());
    const diffusion::Condition real_condition =
        conditions_.of(rows.of(draws.real->labels), real.device());
    Noised noised_real = noised(real, draws.real_levels, added_to_real, rows);
    if (gan.r1_weight > 0) noised_real.x_t.set_requires_grad(true);

    const diffusion::EdmDenoiser fake = fake_score();
    const BottleneckDiscriminator head(fake, inputs_.fake);
    const HeadSamples fake_samples = head_samples(draws.levels.on_host, rows);
    const Tensor on_fake = head.logits(bottleneck_of_fake.index_select(0, fake_samples.rows));
    const backends::DoubleBackwardGuard twice_differentiable(gan.r1_weight > 0);
    const Tensor on_real = head.logits(noised_real.x_t, noised_real.sigma, real_condition);
    const bool together = device().is_cpu();
    if (together) {
        loss.value = loss.value + gan.discriminator_weight *
                                      discriminator_loss(on_real, on_fake, fake_samples.weight);
    } else {
        // Differentiated apart, gradients of what both graphs read are summed in one operation, in
        // float32, instead of one by one.
        loss.apart = gan.discriminator_weight * loss_on_real(on_real);
        if (on_fake.numel() > 0)
            loss.value =
                loss.value + gan.discriminator_weight * fake_samples.weight * loss_on_fake(on_fake);
    }
    if (gan.r1_weight > 0) {
        Tensor& term = together ? loss.value : loss.apart;
        term = term + gan.r1_weight * r1_penalty(on_real, noised_real.x_t);
    }
    loss.metrics.emplace_back("real_logit", on_real.mean());
    if (on_fake.numel() > 0) loss.metrics.emplace_back("fake_logit", on_fake.mean());
}

Tensor DistributionMatching::matching_gradient(const Generated& generated, const Noised& at,
                                               Measurements& metrics) const {
    at::NoGradGuard no_gradients;
    const diffusion::EdmDenoiser fake_model = fake_score();
    const Tensor real = inputs_.teacher.denoise(at.x_t, at.sigma, generated.condition);
    const auto denoised = fake_model.denoise_and_encode(at.x_t, at.sigma, generated.condition);
    const Tensor& fake = denoised.estimate;
    // A fake score that follows the student closely denoises its samples at least as well as the
    // teacher does.
    metrics.emplace_back(
        "fake_lag", (fake - generated.x).square().mean() / (real - generated.x).square().mean());
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
    const std::vector<Tensor> noise = noise_of(draws.noise, rows);
    const Generated generated = generate(noise[0], draws.step_noise, draws.labels, rows);
    const bool identity = settings_.loss == MatchingLoss::score_identity;
    const Tensor source = identity ? generated.x : generated.x.detach();
    const Noised at = noised(source, draws.levels, noise[1], rows);
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
    const Tensor norm = dm_gradient.norm();
    loss.metrics.emplace_back("student_loss", loss.value);
    loss.metrics.emplace_back("dm_gradient", norm);
    if (settings_.adversarial) add_gan(loss, generated, norm, draws, noise.back(), rows);
    if (draws.pairs) add_regression(loss, *draws.pairs, rows);
    return loss;
}

void DistributionMatching::add_gan(Loss& loss, const Generated& generated, const Tensor& dm_norm,
                                   StudentDraws& draws, const Tensor& added,
                                   const MicroBatch& rows) const {
    const AdversarialSettings& gan = *settings_.adversarial;
    const Noised at = noised(generated.x, draws.gan_levels, added, rows);
    const diffusion::EdmDenoiser fake = fake_score();
    const Tensor value = generator_gan_loss(
        BottleneckDiscriminator(fake, inputs_.fake).logits(at.x_t, at.sigma, generated.condition));
    // In float16 the gradient of a mean over many samples would underflow.
    const double scale = context_.compute.type == at::kHalf ? static_cast<double>(rows.count) : 1.0;
    const Tensor gan_gradient =
        torch::autograd::grad({value * scale}, {generated.x}, {}, /*retain_graph=*/true)[0] / scale;
    const Tensor norm = gan_gradient.norm().to(at::kDouble);
    if (!gan.gan_weight && !draws.gan_weight.defined())
        draws.gan_weight = balanced_weight(dm_norm.to(at::kDouble), norm);
    const Tensor weight = gan.gan_weight ? at::full_like(norm, *gan.gan_weight) : draws.gan_weight;
    // The gradient on the samples is already known, so the head's graph is not traversed again.
    loss.value = loss.value + weight.to(at::kFloat) * (generated.x * gan_gradient.detach()).sum();
    loss.metrics.emplace_back("gan_loss", value);
    loss.metrics.emplace_back("gan_gradient", weight * norm);
    loss.metrics.emplace_back("gan_weight", weight);
}

/// The weight that balances the GAN's gradient against distribution matching's, smoothed over
/// updates; float64 scalars on the stage's device.
Tensor DistributionMatching::balanced_weight(const Tensor& dm_norm, const Tensor& gan_norm) const {
    const Tensor balanced = settings_.adversarial->gan_balance * dm_norm / (gan_norm + 1e-12),
                 before = gan_weight_tensor_.defined() ? gan_weight_tensor_
                                                       : at::full_like(balanced, gan_weight_);
    const Tensor mine =
        at::where(before == 0, balanced, before + weight_smoothing * (balanced - before));
    if (!agrees()) return mine;
    return at::full_like(mine, of_first_micro_batch(mine.item<double>()));
}

/// What an update of the student learned about the GAN's weight applies from then on.
void DistributionMatching::finish_update(std::size_t index) {
    if (index == fake_score_learner || !student_draws_.last()) return;
    const Tensor& found = student_draws_.last()->gan_weight;
    if (!found.defined()) return;
    if (found.is_cpu()) gan_weight_ = found.item<double>();
    else gan_weight_tensor_ = found;
}

std::map<std::string, double*> DistributionMatching::scalars() {
    if (gan_weight_tensor_.defined()) gan_weight_ = gan_weight_tensor_.item<double>();
    gan_weight_tensor_ = Tensor();
    return {{"gan_weight", &gan_weight_}, {"highest_diversity", &highest_diversity_}};
}

void DistributionMatching::add_regression(Loss& loss, const PairBatch& batch,
                                          const MicroBatch& rows) const {
    const diffusion::EdmDenoiser student(inputs_.student_network, inputs_.student, context_.noise,
                                         context_.compute);
    const Tensor generated =
        diffusion::sample_one_step(student, backends::to_device(rows.of(batch.noise), device()),
                                   context_.noise, conditions_.of(rows.of(batch.labels), device()));
    const Tensor value =
        inputs_.regression(generated, backends::to_device(rows.of(batch.samples), device()));
    loss.value = loss.value + settings_.regression_weight * value;
    loss.metrics.emplace_back("regression", value);
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
