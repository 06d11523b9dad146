#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace atelier::conditions {

/// No student has less than this share of an equal budget.
inline constexpr double smallest_share = 0.1;

/// The budget of each student relative to an equal one, so that the mean is 1: proportional to
/// `weights`, except that who would have less than `smallest_share` has that. Throws core::Error
/// where there are no weights, one is negative or not finite, or all are zero.
std::vector<double> budget_shares(std::span<const double> weights);

/// `steps` for each of as many students as there are shares, divided by these: the largest
/// remainders are rounded up, so that the sum is that of equal budgets. Each has at least one, or
/// none where `steps` is 0.
std::vector<std::int64_t> divide_steps(std::int64_t steps, std::span<const double> shares);

}  // namespace atelier::conditions
