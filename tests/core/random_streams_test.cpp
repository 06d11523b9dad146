#include "atelier/core/random_streams.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace atelier::core {

using Words = std::array<std::uint32_t, 4>;

// Random123's kat_vectors, "philox4x32 10".
TEST(RandomStreams, philox_gives_the_published_vectors) {
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
              (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    constexpr std::uint32_t ones = 0xffffffff;
    EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(
        philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
        (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStreams, fill_normal_gives_the_sequence_of_normal) {
    RandomStream one(3, "noise", 5), many(3, "noise", 5);
    EXPECT_EQ(one.next32(), many.next32());  // an odd beginning: pairs cross the blocks
    for (const std::size_t count : {1UL, 2UL, 7UL, 0UL, 8UL, 1UL, 33UL}) {
        std::vector<float> filled(count);
        many.fill_normal(filled);
        for (const float number : filled) EXPECT_EQ(number, static_cast<float>(one.normal()));
    }
}

TEST(RandomStreams, skipping_is_drawing_without_looking) {
    for (const int before : {0, 1, 3, 4, 5}) {
        for (const std::uint64_t skipped : {0, 1, 2, 3, 4, 5, 7, 8, 9, 1001}) {
            RandomStream drawn(3, "noise", 5), skipping(3, "noise", 5);
            for (int i = 0; i < before; ++i) drawn.next32(), skipping.next32();
            for (std::uint64_t i = 0; i < skipped; ++i) drawn.next32();
            skipping.skip(skipped);
            for (int i = 0; i < 6; ++i) EXPECT_EQ(skipping.next32(), drawn.next32());
        }
    }
}

TEST(RandomStreams, a_shorter_draw_is_the_beginning_of_a_longer_one) {
    std::vector<float> shorter(101), longer(1000);
    RandomStream(1, "noise").fill_normal(shorter);
    RandomStream(1, "noise").fill_normal(longer);
    EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

TEST(RandomStreams, normal_numbers_have_the_moments_of_a_standard_normal) {
    std::vector<float> x(1'000'000);
    RandomStream(0, "moments").fill_normal(x);
    double first = 0, second = 0, third = 0, fourth = 0;
    for (const double v : x)
        first += v, second += v * v, third += v * v * v, fourth += v * v * v * v;
    const auto n = static_cast<double>(x.size());
    EXPECT_NEAR(first / n, 0, 0.005);
    EXPECT_NEAR(second / n, 1, 0.007);
    EXPECT_NEAR(third / n, 0, 0.02);
    EXPECT_NEAR(fourth / n, 3, 0.05);
    const auto beyond_two = std::ranges::count_if(x, [](float v) { return std::abs(v) > 2; });
    EXPECT_NEAR(static_cast<double>(beyond_two) / n, 0.0455, 0.001);
}

double correlation(RandomStream a, RandomStream b) {
    constexpr int count = 100'000;
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += a.normal() * b.normal();
    return sum / count;
}

TEST(RandomStreams, names_seeds_and_indices_give_unrelated_streams) {
    const RandomStream base(7, "noise", 1);
    EXPECT_NEAR(correlation(base, RandomStream(7, "noise", 2)), 0, 0.015);
    EXPECT_NEAR(correlation(base, RandomStream(8, "noise", 1)), 0, 0.015);
    EXPECT_NEAR(correlation(base, RandomStream(7, "labels", 1)), 0, 0.015);
    EXPECT_NEAR(correlation(base, RandomStream(7, "noise", std::uint64_t{1} << 32)), 0, 0.015);
    EXPECT_GT(correlation(base, base), 0.98);
}

TEST(RandomStreams, uniform_values_fill_the_unit_interval) {
    RandomStream stream(2, "uniform");
    std::array<int, 10> bins{};
    for (int i = 0; i < 100'000; ++i) {
        const double u = stream.uniform();
        ASSERT_GE(u, 0);
        ASSERT_LT(u, 1);
        ++bins[static_cast<std::size_t>(u * 10)];
    }
    for (const int bin : bins) EXPECT_NEAR(bin, 10'000, 400);
}

TEST(RandomStreams, below_is_uniform_and_within_its_bound) {
    RandomStream stream(2, "below");
    std::array<int, 7> bins{};
    for (int i = 0; i < 70'000; ++i) ++bins.at(stream.below(7));
    for (const int bin : bins) EXPECT_NEAR(bin, 10'000, 400);
    EXPECT_EQ(stream.below(1), 0U);
    const std::uint64_t huge =
        (std::uint64_t{1} << 63) + 1;  // nearly half of all words are rejected here
    for (int i = 0; i < 100; ++i) EXPECT_LT(stream.below(huge), huge);
}

TEST(RandomStreams, a_permutation_holds_every_number_once) {
    auto order = RandomStream(5, "order").permutation(1000);
    EXPECT_NE(order[0] + order[1] + order[2], 3);
    std::ranges::sort(order);
    for (std::int64_t i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
    EXPECT_TRUE(RandomStream(5, "order").permutation(0).empty());
}

// Recorded once: trained models and published samples depend on these values.
TEST(RandomStreams, a_stream_stays_what_it_was) {
    RandomStream stream(42, "noise", 3);
    EXPECT_EQ(stream.next64(), 0x29a938f95416a531ULL);
    EXPECT_NEAR(stream.normal(), -0.058881182650889895, 1e-12);
}

}  // namespace atelier::core
