#include "atelier/diffusion/samplers.h"

#include "diffusion/gaussian_denoiser.h"
#include "ops/tensors.h"

namespace atelier::diffusion {

namespace {

constexpr double deviation = 0.5;

/// float64 noise, so that what is measured is the sampler's error and not rounding.
Tensor noise_of(std::int64_t count) { return image_noise(3, 0, count, {2}).to(at::kDouble); }

/// Where the probability-flow ODE carries sigma_max*z in the end when the data is N(0, deviation^2):
/// dx/dsigma = x sigma/(deviation^2 + sigma^2).
Tensor exact_end(const Tensor& noise, double sigma_max) {
    return noise * sigma_max * deviation / std::sqrt(deviation * deviation + sigma_max * sigma_max);
}

/// The last step goes from sigma_min to 0 in one; sigma_min is so small that its error does not show.
const NoiseRange range{1e-5, 80};

template <class Sampler>
double error_with(std::int64_t count, const Sampler& sampler) {
    const GaussianDenoiser denoiser(deviation);
    const Tensor noise = noise_of(16);
    return ops::relative_distance(sampler(denoiser, noise, sampling_levels(range, count), Condition{}), exact_end(noise, range.sigma_max));
}

Tensor no_noise(std::size_t) { throw core::Error("noise was asked for"); }

}  // namespace

TEST(Samplers, heun_converges_at_second_order_to_the_exact_end) {
    const double coarse = error_with(128, sample_heun), fine = error_with(256, sample_heun);
    EXPECT_NEAR(std::log2(coarse / fine), 2, 0.15);
    EXPECT_LT(fine, 1e-3);
}

TEST(Samplers, ddim_converges_at_first_order_to_the_exact_end) {
    const auto ddim = [](const auto&... given) { return sample_ddim(given...); };
    const double coarse = error_with(256, ddim), fine = error_with(512, ddim);
    EXPECT_NEAR(std::log2(coarse / fine), 1, 0.1);
    EXPECT_LT(fine, 5e-2);
}

TEST(Samplers, the_end_has_the_centre_and_the_deviation_of_the_data) {
    const GaussianDenoiser denoiser(deviation, at::tensor({-2.0, 3.0}));
    const Tensor noise = image_noise(0, 0, 8000, {2});
    const std::vector<std::int64_t> classes{1};
    const Condition second{one_hot(classes, 2).labels.expand({8000, 2})};
    const double centre = 3 * (1 - deviation / 80);  // the noise that it starts from is centred on 0, not on 3
    for (const Tensor& samples : {sample_heun(denoiser, noise, sampling_levels({}, 40), second),
                                  sample_ddim(denoiser, noise, sampling_levels({}, 400), second)}) {
        EXPECT_EQ(samples.scalar_type(), at::kFloat);
        EXPECT_NEAR(samples.mean().item<double>(), centre, 0.01);
        EXPECT_NEAR(samples.std().item<double>(), deviation, 0.01);
    }
}

TEST(Samplers, cost_as_many_evaluations_as_they_say) {
    const GaussianDenoiser denoiser(deviation);
    const auto levels = sampling_levels({}, 18);
    sample_heun(denoiser, noise_of(1), levels, {});
    EXPECT_EQ(denoiser.evaluations, 2 * 18 - 1);
    denoiser.evaluations = 0;
    sample_ddim(denoiser, noise_of(1), levels, {});
    EXPECT_EQ(denoiser.evaluations, 18);
    denoiser.evaluations = 0;
    sample_one_step(denoiser, noise_of(1), NoiseRange{}, {});
    EXPECT_EQ(denoiser.evaluations, 1);
}

TEST(Samplers, one_step_is_the_denoiser_at_the_highest_level) {
    const GaussianDenoiser denoiser(deviation, at::tensor({-2.0, 3.0}));
    const Tensor noise = noise_of(4);
    const std::vector<std::int64_t> classes{1, 0, 0, 1};
    const Condition condition = one_hot(classes, 2);
    const Tensor wanted = denoiser.denoise(80 * noise, at::full({4}, 80.0, at::kDouble), condition);
    EXPECT_TRUE(sample_one_step(denoiser, noise, NoiseRange{}, condition).equal(wanted));
    // A single step of either sampler from sigma_max to 0 is the same map.
    const std::vector<double> one_step{80, 0};
    EXPECT_LT(ops::relative_distance(sample_heun(denoiser, noise, one_step, condition), wanted), 1e-12);
    EXPECT_LT(ops::relative_distance(sample_ddim(denoiser, noise, one_step, condition), wanted), 1e-12);
}

TEST(StochasticSampler, without_churn_is_the_deterministic_one) {
    const GaussianDenoiser denoiser(deviation);
    const Tensor noise = noise_of(8);
    const auto levels = sampling_levels({}, 18);
    const Tensor wanted = sample_heun(denoiser, noise, levels, {});
    const auto fresh = [&](std::size_t) { return at::ones_like(noise); };
    EXPECT_TRUE(sample_heun_stochastic(denoiser, noise, levels, {}, {.amount = 0}, fresh).equal(wanted));
    const Churn elsewhere{.amount = 40, .sigma_low = 1000, .sigma_high = 2000};
    EXPECT_TRUE(sample_heun_stochastic(denoiser, noise, levels, {}, elsewhere, no_noise).equal(wanted));
}

TEST(StochasticSampler, asks_for_fresh_noise_once_a_step_within_its_span) {
    const GaussianDenoiser denoiser(deviation);
    const Tensor noise = noise_of(1);
    const std::vector<double> levels{80, 50, 10, 0.05, 0.01, 0};
    std::vector<std::size_t> asked;
    const auto fresh = [&](std::size_t step) {
        asked.push_back(step);
        return at::zeros_like(noise);
    };
    sample_heun_stochastic(denoiser, noise, levels, {}, {.sigma_low = 0.05, .sigma_high = 50}, fresh);
    EXPECT_EQ(asked, (std::vector<std::size_t>{1, 2, 3}));
}

TEST(StochasticSampler, a_step_raises_the_level_and_adds_what_is_missing) {
    // One step by hand: gamma = min(amount/steps, sqrt(2)-1).
    const GaussianDenoiser denoiser(deviation);
    const Tensor noise = noise_of(3), fresh = at::full_like(noise, 0.7);
    for (const double amount : {0.2, 40.0}) {
        const double sigma = 2, raised = sigma * (1 + std::min(amount, std::sqrt(2.0) - 1));
        const Tensor x = sigma * noise + std::sqrt(raised * raised - sigma * sigma) * 1.003 * fresh;
        const Tensor wanted = denoiser.denoise(x, at::full({3}, raised, at::kDouble), {});
        const std::vector<double> levels{sigma, 0};
        const Tensor actual = sample_heun_stochastic(denoiser, noise, levels, {}, {.amount = amount}, [&](std::size_t) { return fresh; });
        EXPECT_LT(ops::relative_distance(actual, wanted), 1e-12) << amount;
    }
}

TEST(StochasticSampler, keeps_the_deviation_of_the_data) {
    const GaussianDenoiser denoiser(deviation);
    const Tensor noise = image_noise(0, 0, 8000, {2});
    const auto fresh = [](std::size_t step) { return image_noise(100 + step, 0, 8000, {2}); };
    const Churn churn{.amount = 20, .sigma_low = 0.05, .sigma_high = 50, .noise_scale = 1};
    const Tensor samples = sample_heun_stochastic(denoiser, noise, sampling_levels({}, 64), {}, churn, fresh);
    EXPECT_NEAR(samples.std().item<double>(), deviation, 0.015);
    EXPECT_GT(ops::relative_distance(samples, sample_heun(denoiser, noise, sampling_levels({}, 64), {})), 0.1);
}

}  // namespace atelier::diffusion
