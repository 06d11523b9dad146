#include "atelier/conditions/budget.h"

#include <cmath>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "atelier/core/error.h"
#include "core/test_folder.h"

namespace atelier::conditions {
namespace {

using Weights = std::vector<double>;
using Steps = std::vector<std::int64_t>;

double sum(const Weights& values) { return std::accumulate(values.begin(), values.end(), 0.0); }
std::int64_t sum(const Steps& values) {
    return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

}  // namespace

TEST(budget, shares_are_proportional_to_weights_and_their_mean_is_one) {
    EXPECT_EQ(budget_shares(Weights{10, 20, 30, 20}), (Weights{0.5, 1, 1.5, 1}));
    EXPECT_EQ(budget_shares(Weights{7}), Weights{1});
    EXPECT_EQ(budget_shares(Weights{0.1, 0.1}), (Weights{1, 1}));
}

TEST(budget, nobody_has_less_than_the_smallest_share_and_the_others_pay_for_it) {
    const Weights shares = budget_shares(Weights{0, 1, 3});
    EXPECT_DOUBLE_EQ(shares[0], smallest_share);
    EXPECT_DOUBLE_EQ(shares[1], 2.9 / 4);
    EXPECT_DOUBLE_EQ(shares[2], 2.9 * 3 / 4);
    // The second falls below only when the first has been raised: 0.1002 before, 0.0992 after.
    Weights weights(10, 1.0);
    weights[0] = 0;
    weights[1] = 0.081;
    const Weights chain = budget_shares(weights);
    EXPECT_DOUBLE_EQ(chain[0], smallest_share);
    EXPECT_DOUBLE_EQ(chain[1], smallest_share);
    EXPECT_DOUBLE_EQ(chain[2], 9.8 / 8);
    EXPECT_NEAR(sum(chain), 10, 1e-12);
}

TEST(budget, steps_add_up_to_those_of_equal_budgets) {
    EXPECT_EQ(divide_steps(100, Weights{0.5, 1, 1.5, 1}), (Steps{50, 100, 150, 100}));
    EXPECT_EQ(divide_steps(100, Weights{0.333, 0.334, 2.333}), (Steps{33, 34, 233}));
    EXPECT_EQ(divide_steps(0, Weights{0.5, 1.5}), (Steps{0, 0}));
    EXPECT_EQ(divide_steps(1, Weights{0.1, 0.1, 2.8}), (Steps{1, 1, 1}));
    EXPECT_EQ(divide_steps(2, Weights{0.1, 0.1, 2.8}), (Steps{1, 1, 4}));
    for (const std::int64_t steps : {1, 3, 7, 1000, 81'001}) {
        Weights weights;
        for (int k = 0; k < 37; ++k) weights.push_back(std::exp(0.2 * k));
        const Weights shares = budget_shares(weights);
        const Steps divided = divide_steps(steps, shares);
        EXPECT_EQ(sum(divided), 37 * steps);
        for (std::size_t k = 0; k < divided.size(); ++k) {
            EXPECT_GE(divided[k], 1);
            if (steps < 1000) continue;
            EXPECT_NEAR(static_cast<double>(divided[k]), shares[k] * static_cast<double>(steps), 1);
        }
    }
}

TEST(budget, of_weights_that_are_none_is_an_error) {
    EXPECT_EQ(core::error_of([] { budget_shares(Weights{}); }),
              "no student has a budget: all 0 weights are zero");
    EXPECT_EQ(core::error_of([] { budget_shares(Weights{0, 0}); }),
              "no student has a budget: all 2 weights are zero");
    for (const double wrong : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()})
        EXPECT_THROW(budget_shares(Weights{1, wrong}), core::Error);
}

}  // namespace atelier::conditions
