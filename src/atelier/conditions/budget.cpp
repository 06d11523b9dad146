#include "atelier/conditions/budget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "atelier/core/error.h"

namespace atelier::conditions {

std::vector<double> budget_shares(std::span<const double> weights) {
    double sum = 0;
    for (std::size_t k = 0; k < weights.size(); ++k) {
        if (!std::isfinite(weights[k]) || weights[k] < 0)
            core::fail("the budget of student {} is {}; it must be finite and not negative", k,
                       weights[k]);
        sum += weights[k];
    }
    if (sum <= 0) core::fail("no student has a budget: all {} weights are zero", weights.size());
    const auto students = static_cast<double>(weights.size());
    std::vector<double> shares(weights.size());
    // Raising some to the smallest share leaves less for the others, of whom more may fall below.
    std::size_t raised = 0;
    for (std::size_t before = weights.size(); raised != before;) {
        before = raised;
        double rest = 0;  // weights of those that are not raised
        for (std::size_t k = 0; k < weights.size(); ++k) {
            if (shares[k] != smallest_share) rest += weights[k];
        }
        const double left = students - smallest_share * static_cast<double>(raised);
        for (std::size_t k = 0; k < weights.size(); ++k) {
            if (shares[k] == smallest_share) continue;
            shares[k] = left * weights[k] / rest;
        }
        for (double& share : shares) {
            if (share < smallest_share) share = smallest_share;
        }
        raised = static_cast<std::size_t>(std::ranges::count(shares, smallest_share));
    }
    return shares;
}

std::vector<std::int64_t> divide_steps(std::int64_t steps, std::span<const double> shares) {
    const auto students = static_cast<std::int64_t>(shares.size());
    std::vector<std::int64_t> divided(shares.size());
    std::vector<double> remainders(shares.size());
    std::int64_t left = steps * students;
    for (std::size_t k = 0; k < shares.size(); ++k) {
        const double exact = shares[k] * static_cast<double>(steps);
        divided[k] = std::max<std::int64_t>(std::min<std::int64_t>(steps, 1),
                                            static_cast<std::int64_t>(std::floor(exact)));
        remainders[k] = exact - static_cast<double>(divided[k]);
        left -= divided[k];
    }
    // Rounding gives to the largest remainders, and takes from the smallest where steps are so few
    // that some have more than their share.
    std::vector<std::size_t> order(shares.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (; left != 0; left -= left > 0 ? 1 : -1) {
        const auto better = [&](std::size_t a, std::size_t b) {
            if (left > 0) return remainders[a] > remainders[b];
            const bool can_a = divided[a] > 1, can_b = divided[b] > 1;
            return can_a != can_b ? can_a : remainders[a] < remainders[b];
        };
        const std::size_t k = *std::ranges::min_element(order, better);
        divided[k] += left > 0 ? 1 : -1;
        remainders[k] -= left > 0 ? 1 : -1;
    }
    return divided;
}

}  // namespace atelier::conditions
