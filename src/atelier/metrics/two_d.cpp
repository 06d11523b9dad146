#include "atelier/metrics/two_d.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/metrics/nearest.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t quantiles = 512;

/// Quantiles of each row of `values` [S,N] at `positions` [Q] in 0..1, linearly interpolated:
/// [S,Q].
Tensor row_quantiles(const Tensor& values, const Tensor& positions) {
    const Tensor sorted = std::get<0>(values.contiguous().sort(1));
    const Tensor position = positions * static_cast<double>(values.size(1) - 1);
    const Tensor below = position.floor().to(at::kLong), above = position.ceil().to(at::kLong);
    return at::lerp(sorted.index_select(1, below), sorted.index_select(1, above),
                    (position - position.floor()).unsqueeze(0));
}

void check_points(const Tensor& a, const Tensor& b, const char* what) {
    if (a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(1) && a.size(0) > 0 && b.size(0) > 0)
        return;
    core::fail("{}: expected two sets of points of equal width, got {} and {} values", what,
               a.numel(), b.numel());
}

Tensor at_most(const Tensor& points, std::int64_t limit, std::uint64_t seed, const char* stream) {
    if (points.size(0) <= limit) return points.to(at::kDouble);
    std::vector<std::int64_t> order = core::RandomStream(seed, stream).permutation(points.size(0));
    order.resize(static_cast<std::size_t>(limit));
    return points.index_select(0, at::tensor(order)).to(at::kDouble);
}

/// Bandwidths from the pairwise squared distances [n,n] of the points.
std::vector<double> median_bandwidths(const Tensor& squared_distances) {
    const std::int64_t n = squared_distances.size(0), pairs = n * n - n;
    const std::int64_t middle =
        n + (pairs + 1) / 2;  // counted from 1; the first n are of points to themselves
    const double median =
        std::sqrt(std::get<0>(squared_distances.flatten().kthvalue(middle)).item<double>());
    if (!(median > 0))
        core::fail(
            "maximum mean discrepancy: half of the reference points are identical; set "
            "the bandwidths");
    return {median / 8, median / 4, median / 2, median};
}

/// The fraction of `members` equal to each of 0..count-1; negative ones belong to none.
std::vector<double> shares_of(std::span<const std::int64_t> members, std::int64_t count) {
    std::vector<double> shares(static_cast<std::size_t>(count), 0.0);
    for (const std::int64_t member : members) {
        if (member >= 0)
            shares[static_cast<std::size_t>(member)] += 1.0 / static_cast<double>(members.size());
    }
    return shares;
}

/// `members` are the points' modes, -1 for strays.
ModeReport mode_report(std::span<const std::int64_t> members,
                       std::vector<double> reference_shares) {
    ModeReport report;
    report.shares = shares_of(members, static_cast<std::int64_t>(reference_shares.size()));
    report.reference_shares = std::move(reference_shares);
    report.strays =
        static_cast<double>(std::ranges::count(members, -1)) / static_cast<double>(members.size());
    report.worst = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < report.shares.size(); ++i) {
        const double expected = report.reference_shares[i];
        if (expected == 0) continue;
        report.reached += report.shares[i] >= expected / 2;
        report.worst = std::min(report.worst, report.shares[i] / expected);
    }
    return report;
}

std::vector<std::int64_t> to_vector(const Tensor& indices) {
    const Tensor here = indices.contiguous();
    return {here.const_data_ptr<std::int64_t>(),
            here.const_data_ptr<std::int64_t>() + here.numel()};
}

}  // namespace

Tensor random_directions(std::int64_t count, std::int64_t width, std::uint64_t seed) {
    core::RandomStream stream(seed, "sliced_wasserstein");
    std::vector<double> elements(static_cast<std::size_t>(count * width));
    for (double& element : elements) element = stream.normal();
    const Tensor directions = at::tensor(elements).reshape({count, width});
    return directions / directions.norm(2, {1}, true);
}

double sliced_wasserstein(const Tensor& a, const Tensor& b, const Tensor& directions) {
    check_points(a, b, "sliced Wasserstein distance");
    const Tensor lines = directions.to(at::kDouble);
    const Tensor positions = at::linspace(0, 1, quantiles, at::kDouble);
    const auto projected = [&](const Tensor& points) {
        return row_quantiles(at::matmul(lines, points.to(at::kDouble).t()), positions);
    };
    return (projected(a) - projected(b)).abs().mean().item<double>();
}

double sliced_wasserstein(const Tensor& a, const Tensor& b, std::int64_t directions,
                          std::uint64_t seed) {
    return sliced_wasserstein(a, b, random_directions(directions, a.size(-1), seed));
}

double mmd_squared(const Tensor& a, const Tensor& b, const Discrepancy& settings) {
    check_points(a, b, "maximum mean discrepancy");
    if (a.size(0) < 2 || b.size(0) < 2)
        core::fail("maximum mean discrepancy: each set needs 2 points or more");
    const Tensor from = at_most(a, settings.limit, settings.seed, "mmd/a"),
                 to = at_most(b, settings.limit, settings.seed, "mmd/b");
    const auto squared = [](const Tensor& x, const Tensor& y) {
        return at::cdist(x, y, 2.0, /*without matrix product*/ 2).square();
    };
    const Tensor aa = squared(from, from), bb = squared(to, to), ab = squared(from, to);
    const std::vector<double> bandwidths =
        settings.bandwidths.empty() ? median_bandwidths(bb) : settings.bandwidths;
    double sum = 0;
    for (const double bandwidth : bandwidths) {
        const double rate = -0.5 / (bandwidth * bandwidth);
        const auto within = [&](const Tensor& distances) {  // the diagonal's ones do not count
            const double n = static_cast<double>(distances.size(0));
            return ((distances * rate).exp().sum().item<double>() - n) / (n * (n - 1));
        };
        sum += within(aa) + within(bb) - 2 * (ab * rate).exp().mean().item<double>();
    }
    return sum / static_cast<double>(bandwidths.size());
}

ModeReport modes(const Tensor& points, const Tensor& reference, const Tensor& centres,
                 double std_dev) {
    const auto members = [&](const Tensor& rows) {
        const Nearest found = nearest(rows, centres, 1);
        const Tensor near = found.distances.select(1, 0) < 4 * std_dev;
        return to_vector(at::where(near, found.indices.select(1, 0),
                                   -at::ones_like(found.indices.select(1, 0))));
    };
    return mode_report(members(points), shares_of(members(reference), centres.size(0)));
}

Support::Support(const Tensor& reference, std::span<const std::int64_t> labels,
                 std::int64_t classes, std::uint64_t seed) {
    const std::int64_t count = reference.size(0);
    if (count < 4)
        core::fail("strays: {} reference points are too few; 4 or more are needed", count);
    const std::vector<std::int64_t> order = core::RandomStream(seed, "support").permutation(count);
    const Tensor positions = at::tensor(order);
    kept_ = reference.index_select(0, positions.narrow(0, 0, count / 2)).to(at::kDouble);
    const Tensor held_out =
        reference.index_select(0, positions.narrow(0, count / 2, count - count / 2));
    const Tensor quantile = at::full({1}, 0.999, at::kDouble);
    stray_distance_ =
        2 * row_quantiles(nearest(held_out, kept_, 1).distances.t(), quantile).item<double>();
    for (std::int64_t i = 0; i < count / 2; ++i) {
        const auto index = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
        kept_labels_.push_back(labels.empty() ? 0 : labels[index]);
    }
    const std::vector<std::int64_t> all =
        labels.empty() ? kept_labels_ : std::vector<std::int64_t>(labels.begin(), labels.end());
    reference_shares_ = shares_of(all, std::max<std::int64_t>(classes, 1));
}

std::vector<std::int64_t> Support::classes_of(const Tensor& points) const {
    const Nearest found = nearest(points, kept_, 1);
    const std::vector<std::int64_t> positions = to_vector(found.indices);
    const Tensor distances = found.distances.contiguous();
    std::vector<std::int64_t> classes;
    for (std::size_t i = 0; i < positions.size(); ++i) {
        const bool stray =
            !(distances.const_data_ptr<double>()[i] <= stray_distance_);  // NaN is a stray, too
        classes.push_back(stray ? -1 : kept_labels_[static_cast<std::size_t>(positions[i])]);
    }
    return classes;
}

ModeReport Support::modes(std::span<const std::int64_t> classes) const {
    return mode_report(classes, reference_shares_);
}

std::vector<Point> points_of(const Tensor& points) {
    const Tensor here = points.detach().to(at::kCPU, at::kDouble).narrow(1, 0, 2).contiguous();
    std::vector<Point> all(static_cast<std::size_t>(here.size(0)));
    std::memcpy(all.data(), here.const_data_ptr<double>(), all.size() * sizeof(Point));
    return all;
}

}  // namespace atelier::metrics
