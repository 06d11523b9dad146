#include "atelier/diffusion/noise_schedule.h"

#include <algorithm>
#include <set>

#include "backends/tensors.h"

namespace atelier::diffusion {

TEST(KarrasLevels, fall_from_sigma_max_to_sigma_min) {
    for (const double rho : {1.0, 3.0, 7.0}) {
        const auto levels = karras_levels(0.002, 80, 40, rho);
        ASSERT_EQ(levels.size(), 40U);
        EXPECT_NEAR(levels.front(), 80, 1e-10);
        EXPECT_NEAR(levels.back(), 0.002, 1e-12);
        for (std::size_t i = 1; i < levels.size(); ++i) EXPECT_LT(levels[i], levels[i - 1]);
    }
}

TEST(KarrasLevels, are_evenly_spaced_in_the_root) {
    const auto levels = karras_levels(0.01, 10, 11, 7);
    const double step = std::pow(levels[1], 1.0 / 7) - std::pow(levels[0], 1.0 / 7);
    for (std::size_t i = 1; i < levels.size(); ++i) {
        EXPECT_NEAR(std::pow(levels[i], 1.0 / 7) - std::pow(levels[i - 1], 1.0 / 7), step, 1e-12);
    }
}

TEST(KarrasLevels, a_single_level_is_sigma_max) {
    EXPECT_NEAR(karras_levels(0.002, 80, 1).at(0), 80, 1e-10);
}

TEST(SamplingLevels, end_in_zero) {
    const auto levels = NoiseSchedule{}.sampling_levels(18);
    ASSERT_EQ(levels.size(), 19U);
    EXPECT_EQ(levels.back(), 0.0);
    EXPECT_NEAR(levels[17], 0.002, 1e-12);
}

TEST(LognormalLevels, have_the_mean_and_std_of_the_logarithm) {
    core::RandomStream stream(1, "sigma");
    const Tensor logarithm = lognormal_levels(stream, 20000, -1.2, 1.2).log();
    EXPECT_EQ(logarithm.scalar_type(), at::kFloat);
    EXPECT_NEAR(logarithm.mean().item<double>(), -1.2, 0.03);
    EXPECT_NEAR(logarithm.std().item<double>(), 1.2, 0.02);
}

TEST(IndexedLevels, cover_their_indices_and_no_others) {
    const auto rising = NoiseSchedule{}.matching_levels();
    core::RandomStream stream(1, "sigma");
    const Tensor levels = indexed_levels(stream, 2000, rising, 20, 24);
    std::set<float> seen;
    for (std::int64_t i = 0; i < 2000; ++i) seen.insert(levels[i].item<float>());
    std::set<float> expected;
    for (std::size_t i = 20; i <= 24; ++i) expected.insert(static_cast<float>(rising[i]));
    EXPECT_EQ(seen, expected);
}

TEST(MatchingLevels, of_karras_rise_from_sigma_min_to_sigma_max) {
    const auto levels = NoiseSchedule{}.matching_levels();
    ASSERT_EQ(levels.size(), 1000U);
    EXPECT_TRUE(std::ranges::is_sorted(levels));
    EXPECT_NEAR(levels.front(), 0.002, 1e-12);
    EXPECT_NEAR(levels.back(), 80, 1e-10);
}

TEST(NormalTensor, continues_the_stream) {
    core::RandomStream one(1, "z"), two(1, "z");
    const Tensor whole = normal_tensor(one, {2, 3, 4});
    EXPECT_EQ(whole.sizes().vec(), (graph::Shape{2, 3, 4}));
    EXPECT_TRUE(normal_tensor(two, {3, 4}).equal(whole[0]));
    EXPECT_TRUE(normal_tensor(two, {3, 4}).equal(whole[1]));
}

TEST(ImageNoise, depends_on_the_seed_and_the_image_index_alone) {
    const Tensor together = image_noise(5, 0, 7, {3, 4, 4});
    EXPECT_EQ(together.sizes().vec(), (graph::Shape{7, 3, 4, 4}));
    EXPECT_TRUE(image_noise(5, 4, 1, {3, 4, 4})[0].equal(together[4]));
    EXPECT_TRUE(image_noise(5, 2, 4, {3, 4, 4}).equal(together.narrow(0, 2, 4)));
    EXPECT_FALSE(image_noise(6, 4, 1, {3, 4, 4})[0].equal(together[4]));
    EXPECT_FALSE(together[3].equal(together[4]));
}

TEST(ImageNoise, of_no_images_is_empty) {
    EXPECT_EQ(image_noise(5, 3, 0, {3, 4}).sizes().vec(), (graph::Shape{0, 3, 4}));
}

TEST(ImageNoise, is_standard_normal_across_images) {
    const Tensor noise = image_noise(5, 0, 20000, {2});
    EXPECT_LT(noise.mean(0).abs().max().item<double>(), 0.03);
    EXPECT_LT((noise.std(0) - 1).abs().max().item<double>(), 0.02);
}

}  // namespace atelier::diffusion
