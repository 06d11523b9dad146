#include "distillation/distillation_fixtures.h"

#include <cmath>

#include "atelier/distillation/adversarial.h"
#include "atelier/distillation/health.h"
#include "atelier/distillation/regression.h"
#include "atelier/distillation/score_matching.h"

namespace atelier::distillation {
namespace {

TEST(AdversarialLosses, equal_their_softplus_formulas) {
    const Tensor real = at::tensor({2.0, -1.0}, at::kDouble),
                 fake = at::tensor({0.5, -3.0}, at::kDouble);
    const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
    EXPECT_NEAR(generator_gan_loss(fake).item<double>(), (softplus(-0.5) + softplus(3)) / 2, 1e-12);
    EXPECT_NEAR(discriminator_loss(real, fake).item<double>(),
                (softplus(0.5) + softplus(-3) + softplus(-2) + softplus(1)) / 2, 1e-12);
}

TEST(AdversarialLosses, r1_is_the_mean_squared_gradient_on_real_samples) {
    // logit = 3 x0 + 4 x1: the squared gradient norm is 25 for every sample.
    const Tensor x = at::randn({5, 2}).set_requires_grad(true);
    const Tensor logits = (x * at::tensor({3.0f, 4.0f})).sum(1);
    EXPECT_NEAR(r1_penalty(logits, x).item<double>(), 25, 1e-4);
}

TEST(Regression, pseudo_huber_is_zero_on_equal_samples_and_nearly_the_distance_on_far_ones) {
    const Tensor a = at::randn({4, 3, 8, 8});
    EXPECT_NEAR(pseudo_huber(a, a).item<double>(), 0, 1e-9);
    EXPECT_NEAR(pseudo_huber(a, a + 1).item<double>(), std::sqrt(192.0), 0.02);
}

TEST(Regression, perceptual_distance_ignores_a_features_length) {
    const auto loss = perceptual([](const Tensor& images) { return std::vector<Tensor>{images}; });
    const Tensor a = at::randn({2, 3, 4, 4});
    EXPECT_NEAR(loss(a, 5 * a).item<double>(), 0, 1e-6);
    EXPECT_NEAR(loss(a, -a).item<double>(), 4, 1e-4);  // opposite unit vectors are 2 apart
}

TEST(ScoreMatching, without_a_teacher_is_the_weighted_denoising_loss) {
    // A network whose output layer is zero makes D = c_skip x_t, so the loss has a closed form.
    const networks::Network network = small_network();
    const backends::Parameters parameters =
        backends::initialise(networks::trace(network).parameters, 1);
    const diffusion::EdmDenoiser model(network, parameters, {});
    const Tensor x = at::randn({6, 2}), z = at::randn({6, 2}), sigma = at::rand({6}) + 0.1;
    const std::vector<std::int64_t> labels{0, 1, 2, 0, 1, 2};
    const Tensor s = sigma.view({6, 1}), total = s * s + 0.25;
    const Tensor expected =
        (total / (s * 0.5).square() * (0.25 / total * (x + s * z) - x).square()).mean();
    const Tensor loss = score_matching_loss(
        model, nullptr, x, sigma, z, diffusion::one_hot(labels, 3), diffusion::NoiseSchedule{});
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-4 * expected.item<double>());
}

TEST(ScoreMatching, against_its_own_teacher_has_nothing_to_learn) {
    const networks::Network network = small_network();
    const backends::Parameters parameters = random_parameters(network, 1),
                               others = random_parameters(network, 2);
    const diffusion::EdmDenoiser teacher(network, parameters, {}), other(network, others, {});
    const Tensor x = at::randn({3, 2}), z = at::randn({3, 2}), sigma = at::ones({3});
    const std::vector<std::int64_t> labels{0, 1, 2};
    const auto condition = diffusion::one_hot(labels, 3);
    EXPECT_NEAR(
        score_matching_loss(teacher, &teacher, x, sigma, z, condition, diffusion::NoiseSchedule{})
            .item<double>(),
        0, 1e-10);
    EXPECT_GT(
        score_matching_loss(other, &teacher, x, sigma, z, condition, diffusion::NoiseSchedule{})
            .item<double>(),
        1e-6);
}

std::string words_of(const std::vector<Finding>& findings) {
    std::string all;
    for (const Finding& finding : findings) all += finding.message + "\n";
    return all;
}

TEST(Health, accepts_samples_like_the_data) {
    const Tensor real = at::randn({200, 2}).clamp(-1, 1),
                 samples = at::randn({200, 2}).clamp(-1, 1);
    const auto findings = judge({{"dm_gradient", 1},
                                 {"gan_gradient", 1},
                                 {"real_logit", 0.5},
                                 {"fake_logit", -0.5},
                                 {"fake_lag", 1}},
                                probe_statistics(samples, real));
    ASSERT_EQ(findings.size(), 1u);
    EXPECT_EQ(findings[0].level, Finding::Level::ok);
}

TEST(Health, reports_a_collapse_when_samples_become_alike_or_non_finite) {
    const Tensor real = at::randn({200, 2});
    ProbeStatistics alike = probe_statistics(at::ones({200, 2}) + 0.01 * at::randn({200, 2}), real);
    // A student starts at its teacher's mean, which alone gives a warning; losing diversity is a
    // collapse.
    EXPECT_EQ(judge({}, alike)[0].level, Finding::Level::warning);
    alike.was_diverse = true;
    EXPECT_EQ(judge({}, alike)[0].level, Finding::Level::collapse);
    EXPECT_EQ(judge({}, probe_statistics(at::full({200, 2}, std::nan("")), real))[0].level,
              Finding::Level::collapse);
}

TEST(Health, warns_of_each_sign_with_a_message) {
    const Tensor real = at::randn({500, 2}).clamp(-1, 1);
    EXPECT_NE(words_of(judge({}, probe_statistics(0.4 * real, real))).find("vary only"),
              std::string::npos);
    EXPECT_NE(words_of(judge({}, probe_statistics(3 * real, real))).find("over-saturation"),
              std::string::npos);
    const ProbeStatistics fine = probe_statistics(real, real);
    EXPECT_NE(
        words_of(judge({{"dm_gradient", 1}, {"gan_gradient", 50}}, fine)).find("adm.gan_weight"),
        std::string::npos);
    EXPECT_NE(words_of(judge({{"real_logit", 9}, {"fake_logit", -9}}, fine)).find("has won"),
              std::string::npos);
    EXPECT_NE(words_of(judge({{"fake_lag", 10}}, fine)).find("lags"), std::string::npos);
}

}  // namespace
}  // namespace atelier::distillation
