#include "atelier/conditions/prior.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "atelier/core/error.h"

namespace atelier::conditions {
namespace {

std::vector<std::int64_t> counts(const Prior& prior, std::uint64_t seed, std::uint64_t first,
                                 std::uint64_t number) {
    std::vector<std::int64_t> counts(prior.weights.size());
    for (std::uint64_t i = first; i < first + number; ++i)
        ++counts[static_cast<std::size_t>(draw_class(prior, seed, i))];
    return counts;
}

TEST(prior, any_stretch_holds_each_class_within_a_few_of_its_share) {
    const Prior prior{{5, 1, 0, 3, 1}};
    for (const std::uint64_t seed : {0, 1, 77}) {
        for (const std::uint64_t first : {0ULL, 12345ULL, (1ULL << 40)}) {
            for (const std::uint64_t number : {10, 100, 5000}) {
                const auto found = counts(prior, seed, first, number);
                for (std::size_t i = 0; i < found.size(); ++i) {
                    EXPECT_NEAR(static_cast<double>(found[i]),
                                static_cast<double>(number) * prior.weights[i] / 10, 5)
                        << seed << " " << first;
                }
            }
        }
    }
}

TEST(prior, a_class_of_weight_zero_is_never_drawn) {
    const auto found = counts({{0, 1e-300, 0, 1e-300, 0}}, 3, 0, 2000);
    EXPECT_EQ(found[0] + found[2] + found[4], 0);
    EXPECT_EQ(found[1] + found[3], 2000);
}

TEST(prior, drawing_depends_on_seed_and_index_alone) {
    const Prior prior{{1, 1, 1, 1}};
    EXPECT_EQ(draw_class(prior, 5, 9), draw_class(prior, 5, 9));
    std::vector<std::int64_t> one, other;
    for (std::uint64_t i = 0; i < 32; ++i) {
        one.push_back(draw_class(prior, 1, i));
        other.push_back(draw_class(prior, 2, i));
    }
    EXPECT_NE(one, other);
}

TEST(prior, counts_and_frequencies_draw_the_same) {
    for (std::uint64_t i = 0; i < 200; ++i)
        EXPECT_EQ(draw_class({{4, 8, 4}}, 0, i), draw_class({{0.25, 0.5, 0.25}}, 0, i));
}

TEST(prior, restriction_keeps_only_the_requested_classes) {
    const Prior prior{{1, 2, 3, 4}};
    EXPECT_EQ(restricted(prior, std::array<std::int64_t, 2>{3, 1}).weights,
              (std::vector<double>{0, 2, 0, 4}));
}

TEST(prior, restriction_to_nothing_is_an_error) {
    const Prior prior{{1, 0, 3}};
    EXPECT_THROW(restricted(prior, {}), core::Error);
    EXPECT_THROW(restricted(prior, std::array<std::int64_t, 1>{1}), core::Error);
    EXPECT_THROW(restricted(prior, std::array<std::int64_t, 1>{3}), core::Error);
}

TEST(prior, invalid_weights_are_errors) {
    for (const double bad : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
        EXPECT_THROW(draw_class({{1, bad}}, 0, 0), core::Error);
    }
    EXPECT_THROW(draw_class({{0, 0}}, 0, 0), core::Error);
    EXPECT_THROW(draw_class({}, 0, 0), core::Error);
}

}  // namespace
}  // namespace atelier::conditions
