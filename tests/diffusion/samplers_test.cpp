#include "atelier/diffusion/samplers.h"

#include "backends/tensors.h"
#include "diffusion/gaussian_denoiser.h"

namespace atelier::diffusion {

namespace {

constexpr double sigma_data = 0.5;

/// float64 noise, so that the sampler's error is measured and not rounding.
Tensor noise_of(std::int64_t count) { return image_noise(3, 0, count, {2}).to(at::kDouble); }

/// The end of the probability-flow ODE from sigma_max*z for data N(0, sigma_data^2): dx/dsigma =
/// x sigma/(sigma_data^2 + sigma^2).
Tensor exact_end(const Tensor& noise, double sigma_max) {
    return noise * sigma_max * sigma_data /
           std::sqrt(sigma_data * sigma_data + sigma_max * sigma_max);
}

/// The last step goes from sigma_min to 0; sigma_min is so small that its error is negligible.
const NoiseSchedule from_clean = NoiseSchedule::edm(sigma_data, 1e-5, 80);

template <class Sampler>
double error_with(std::int64_t count, const Sampler& sampler) {
    const GaussianDenoiser denoiser(sigma_data);
    const Tensor noise = noise_of(16);
    return backends::relative_distance(
        sampler(denoiser, noise, from_clean.sampling_levels(count), Condition{}),
        exact_end(noise, from_clean.sigma_max));
}

Tensor no_noise(std::size_t) { throw core::Error("noise was asked for"); }

}  // namespace

TEST(Samplers, heun_converges_at_second_order_to_the_exact_solution) {
    const double coarse = error_with(128, sample_heun), fine = error_with(256, sample_heun);
    EXPECT_NEAR(std::log2(coarse / fine), 2, 0.15);
    EXPECT_LT(fine, 1e-3);
}

TEST(Samplers, ddim_converges_at_first_order_to_the_exact_solution) {
    const auto ddim = [](const auto&... given) { return sample_ddim(given...); };
    const double coarse = error_with(256, ddim), fine = error_with(512, ddim);
    EXPECT_NEAR(std::log2(coarse / fine), 1, 0.1);
    EXPECT_LT(fine, 5e-2);
}

TEST(Samplers, few_steps_denoise_noised_estimates_at_the_levels_of_their_students) {
    // Of data N(0, sd^2), D(x; s) = x sd^2 / (sd^2 + s^2).
    const GaussianDenoiser denoiser(sigma_data);
    const NoiseSchedule schedule;
    const Tensor z = noise_of(16);
    const auto added = [](std::size_t k) { return image_noise(k, 0, 16, {2}).to(at::kDouble); };
    const std::vector<double> levels = schedule.student_levels(4), all = schedule.matching_levels();
    EXPECT_EQ(levels, (std::vector{80.0, all[749], all[499], all[249]}));
    Tensor expected = z * 80;
    for (std::size_t k = 0; k < levels.size(); ++k) {
        if (k > 0) expected = expected + levels[k] * added(k);
        expected =
            expected * sigma_data * sigma_data / (sigma_data * sigma_data + levels[k] * levels[k]);
    }
    EXPECT_LT(backends::relative_distance(
                  sample_few_steps(denoiser, z, schedule, levels, Condition{}, added), expected),
              1e-6);
    EXPECT_TRUE(at::equal(
        sample_few_steps(denoiser, z, schedule, schedule.student_levels(1), Condition{}, no_noise),
        sample_one_step(denoiser, z, schedule, Condition{})));
}

TEST(Samplers, samples_have_the_mean_and_std_of_the_data) {
    const GaussianDenoiser denoiser(sigma_data, at::tensor({-2.0, 3.0}));
    const Tensor noise = image_noise(0, 0, 8000, {2});
    const std::vector<std::int64_t> classes{1};
    const Condition second{one_hot(classes, 2).labels.expand({8000, 2})};
    const double centre = 3 * (1 - sigma_data / 80);  // the initial noise is centred on 0, not on 3
    for (const Tensor& samples :
         {sample_heun(denoiser, noise, NoiseSchedule{}.sampling_levels(40), second),
          sample_ddim(denoiser, noise, NoiseSchedule{}.sampling_levels(400), second)}) {
        EXPECT_EQ(samples.scalar_type(), at::kFloat);
        EXPECT_NEAR(samples.mean().item<double>(), centre, 0.01);
        EXPECT_NEAR(samples.std().item<double>(), sigma_data, 0.01);
    }
}

TEST(Samplers, take_the_documented_number_of_evaluations) {
    const GaussianDenoiser denoiser(sigma_data);
    const auto levels = NoiseSchedule{}.sampling_levels(18);
    sample_heun(denoiser, noise_of(1), levels, {});
    EXPECT_EQ(denoiser.evaluations, 2 * 18 - 1);
    denoiser.evaluations = 0;
    sample_ddim(denoiser, noise_of(1), levels, {});
    EXPECT_EQ(denoiser.evaluations, 18);
    denoiser.evaluations = 0;
    sample_one_step(denoiser, noise_of(1), NoiseSchedule{}, {});
    EXPECT_EQ(denoiser.evaluations, 1);
}

TEST(Samplers, one_step_is_the_denoiser_at_the_highest_level) {
    const GaussianDenoiser denoiser(sigma_data, at::tensor({-2.0, 3.0}));
    const Tensor noise = noise_of(4);
    const std::vector<std::int64_t> classes{1, 0, 0, 1};
    const Condition condition = one_hot(classes, 2);
    const Tensor expected =
        denoiser.denoise(80 * noise, at::full({4}, 80.0, at::kDouble), condition);
    EXPECT_TRUE(sample_one_step(denoiser, noise, NoiseSchedule{}, condition).equal(expected));
    // A single step of either sampler from sigma_max to 0 is the same map.
    const std::vector<double> one_step{80, 0};
    EXPECT_LT(
        backends::relative_distance(sample_heun(denoiser, noise, one_step, condition), expected),
        1e-12);
    EXPECT_LT(
        backends::relative_distance(sample_ddim(denoiser, noise, one_step, condition), expected),
        1e-12);
}

TEST(StochasticSampler, without_churn_is_the_deterministic_one) {
    const GaussianDenoiser denoiser(sigma_data);
    const Tensor noise = noise_of(8);
    const auto levels = NoiseSchedule{}.sampling_levels(18);
    const Tensor expected = sample_heun(denoiser, noise, levels, {});
    const auto step_noise = [&](std::size_t) { return at::ones_like(noise); };
    EXPECT_TRUE(sample_heun_stochastic(denoiser, noise, levels, {}, {.s_churn = 0}, step_noise)
                    .equal(expected));
    const StochasticSampling elsewhere{.s_churn = 40, .s_min = 1000, .s_max = 2000};
    EXPECT_TRUE(
        sample_heun_stochastic(denoiser, noise, levels, {}, elsewhere, no_noise).equal(expected));
}

TEST(StochasticSampler, requests_noise_once_per_step_within_its_range) {
    const GaussianDenoiser denoiser(sigma_data);
    const Tensor noise = noise_of(1);
    const std::vector<double> levels{80, 50, 10, 0.05, 0.01, 0};
    std::vector<std::size_t> requested;
    const auto step_noise = [&](std::size_t step) {
        requested.push_back(step);
        return at::zeros_like(noise);
    };
    sample_heun_stochastic(denoiser, noise, levels, {}, {.s_min = 0.05, .s_max = 50}, step_noise);
    EXPECT_EQ(requested, (std::vector<std::size_t>{1, 2, 3}));
}

TEST(StochasticSampler, a_step_raises_the_level_and_adds_noise_accordingly) {
    // One step by hand: gamma = min(S_churn/steps, sqrt(2)-1).
    const GaussianDenoiser denoiser(sigma_data);
    const Tensor noise = noise_of(3), step_noise = at::full_like(noise, 0.7);
    for (const double s_churn : {0.2, 40.0}) {
        const double sigma = 2, sigma_hat = sigma * (1 + std::min(s_churn, std::sqrt(2.0) - 1));
        const Tensor x =
            sigma * noise + std::sqrt(sigma_hat * sigma_hat - sigma * sigma) * 1.003 * step_noise;
        const Tensor expected = denoiser.denoise(x, at::full({3}, sigma_hat, at::kDouble), {});
        const std::vector<double> levels{sigma, 0};
        const Tensor actual =
            sample_heun_stochastic(denoiser, noise, levels, {}, {.s_churn = s_churn},
                                   [&](std::size_t) { return step_noise; });
        EXPECT_LT(backends::relative_distance(actual, expected), 1e-12) << s_churn;
    }
}

TEST(StochasticSampler, keeps_the_std_of_the_data) {
    const GaussianDenoiser denoiser(sigma_data);
    const Tensor noise = image_noise(0, 0, 8000, {2});
    const auto step_noise = [](std::size_t step) { return image_noise(100 + step, 0, 8000, {2}); };
    const StochasticSampling stochastic{.s_churn = 20, .s_min = 0.05, .s_max = 50, .s_noise = 1};
    const Tensor samples = sample_heun_stochastic(
        denoiser, noise, NoiseSchedule{}.sampling_levels(64), {}, stochastic, step_noise);
    EXPECT_NEAR(samples.std().item<double>(), sigma_data, 0.015);
    EXPECT_GT(backends::relative_distance(
                  samples, sample_heun(denoiser, noise, NoiseSchedule{}.sampling_levels(64), {})),
              0.1);
}

}  // namespace atelier::diffusion
