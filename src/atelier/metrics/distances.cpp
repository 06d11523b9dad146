#include "atelier/metrics/distances.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/metrics/nearest.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t statistics_batch = 4096;
constexpr double negative_tolerance =
    1e-4;  // of the largest eigenvalue: rounding error of zeros, e.g. in float32 files

[[noreturn]] void fail_covariance(const std::string& what, double least, double most) {
    core::fail(
        "{}: is not a covariance: its eigenvalues range from {:.3g} to {:.3g}, and a covariance "
        "has "
        "none below 0; was it computed or saved incorrectly?",
        what, least, most);
}

/// Throws when the ascending `eigenvalues` are not those of a covariance.
void check_eigenvalues(const Tensor& eigenvalues, const std::string& what) {
    const double least = eigenvalues.min().item<double>(), most = eigenvalues.max().item<double>();
    if (!(least >= -negative_tolerance * std::max(most, 0.0))) fail_covariance(what, least, most);
}

/// Distances are sums of terms of both signs, so rounding may make them slightly negative; clamps
/// those at 0 and throws on anything more negative.
double clamp_rounding(double distance, double scale) {
    if (!(distance >= -1e-6 * scale))
        core::fail(
            "Frechet distance: got {:.3g}, and distances are not negative; one of the "
            "covariances is invalid",
            distance);
    return std::max(0.0, distance);
}

/// Eigenvalues of a positive semi-definite matrix, with those at rounding level set to 0.
Tensor zero_small_eigenvalues(const Tensor& eigenvalues) {
    const double floor = eigenvalues.max().item<double>() *
                         static_cast<double>(eigenvalues.numel()) *
                         std::numeric_limits<double>::epsilon();
    return at::where(eigenvalues > floor, eigenvalues, at::zeros_like(eigenvalues));
}

Tensor symmetric_root(const Tensor& matrix) {
    const auto [values, vectors] = at::linalg_eigh(matrix);
    check_eigenvalues(values, "Frechet distance: a matrix");
    return at::matmul(vectors * zero_small_eigenvalues(values).sqrt(), vectors.t());
}

Tensor random_rows(const Tensor& rows, std::int64_t count, core::RandomStream stream) {
    const std::vector<std::int64_t> order = stream.permutation(rows.size(0));
    return rows
        .index_select(0, at::tensor(at::ArrayRef<std::int64_t>(order).slice(
                                        0, static_cast<std::size_t>(count)),
                                    at::kLong))
        .to(at::kCPU, at::kDouble);
}

Tensor cubic_kernel(const Tensor& a, const Tensor& b) {
    return at::matmul(a, b.t()).div_(static_cast<double>(a.size(1))).add_(1).pow_(3);
}

double unbiased_mmd(const Tensor& a, const Tensor& b) {
    const auto within = [](const Tensor& x) {
        const Tensor kernel = cubic_kernel(x, x);
        const double n = static_cast<double>(x.size(0));
        return (kernel.sum() - kernel.trace()).item<double>() / (n * (n - 1));
    };
    return within(a) + within(b) - 2 * cubic_kernel(a, b).mean().item<double>();
}

double fraction(const Tensor& mask) { return mask.to(at::kDouble).mean().item<double>(); }

}  // namespace

FeatureStatistics::FeatureStatistics(std::int64_t width)
    : mean_(at::zeros({width}, at::kDouble)), scatter_(at::zeros({width, width}, at::kDouble)) {}

void FeatureStatistics::add(const Tensor& features) {
    if (features.dim() != 2 || features.size(1) != mean_.size(0)) {
        core::fail(
            "feature statistics: expected rows of {} features, got a tensor of {} dimensions, the "
            "last one {}",
            mean_.size(0), features.dim(), features.size(-1));
    }
    const std::int64_t n = features.size(0);
    if (n == 0) return;
    const Tensor rows = features.to(at::kCPU, at::kDouble);
    if (!at::isfinite(rows).all().item<bool>()) {
        core::fail(
            "feature statistics: some features are not finite; the model that made the samples is "
            "broken");
    }
    const Tensor mean = rows.mean(0), centred = rows - mean, step = mean - mean_;
    const double total = static_cast<double>(count_ + n);
    scatter_ +=
        at::matmul(centred.t(), centred) +
        at::outer(step, step) * (static_cast<double>(count_) * static_cast<double>(n) / total);
    mean_ += step * (static_cast<double>(n) / total);
    count_ += n;
}

Statistics FeatureStatistics::finish() const {
    if (count_ < 2)
        core::fail(
            "feature statistics: a covariance needs at least 2 samples, got {}; use more "
            "samples",
            count_);
    return {mean_.clone(), scatter_ / static_cast<double>(count_ - 1), count_};
}

Statistics statistics_of(const Tensor& features) {
    FeatureStatistics statistics(features.size(-1));
    for (const Tensor& rows : features.split(statistics_batch)) statistics.add(rows);
    return statistics.finish();
}

void check_covariance(const Tensor& matrix, const std::string& what) {
    check_eigenvalues(at::linalg_eigvalsh(matrix.to(at::kDouble)), what);
}

double frechet_distance(const Statistics& a, const Statistics& b) {
    if (a.mean.sizes() != b.mean.sizes()) {
        core::fail(
            "Frechet distance: features of widths {} and {} cannot be compared; use one "
            "classifier for both",
            a.mean.numel(), b.mean.numel());
    }
    const Tensor root = symmetric_root(a.covariance);  // checks a.covariance
    check_covariance(b.covariance, "Frechet distance: a matrix");
    const Tensor product = at::matmul(at::matmul(root, b.covariance), root);
    const Tensor values = at::linalg_eigvalsh((product + product.t()) / 2);
    const double root_trace = zero_small_eigenvalues(values).sqrt().sum().item<double>();
    const double trace_a = a.covariance.trace().item<double>(),
                 trace_b = b.covariance.trace().item<double>();
    const double squares = (a.mean - b.mean).square().sum().item<double>();
    return clamp_rounding(squares + trace_a + trace_b - 2 * root_trace,
                          squares + trace_a + trace_b);
}

double frechet_distance(const Tensor& a, const Tensor& b) {
    const std::int64_t width = a.size(-1);
    if (std::min(a.size(0), b.size(0)) >= width || width != b.size(-1))
        return frechet_distance(statistics_of(a), statistics_of(b));
    const Tensor from = a.to(at::kCPU, at::kDouble), to = b.to(at::kCPU, at::kDouble);
    const Tensor mean_a = from.mean(0), mean_b = to.mean(0);
    const Tensor rows_a = (from - mean_a) / std::sqrt(static_cast<double>(from.size(0) - 1)),
                 rows_b = (to - mean_b) / std::sqrt(static_cast<double>(to.size(0) - 1));
    const double traces = (rows_a.square().sum() + rows_b.square().sum()).item<double>(),
                 squares = (mean_a - mean_b).square().sum().item<double>();
    const double root_trace =
        at::linalg_svdvals(at::matmul(rows_a, rows_b.t())).sum().item<double>();
    return clamp_rounding(squares + traces - 2 * root_trace, squares + traces);
}

InceptionScore::InceptionScore(std::int64_t count, std::int64_t splits,
                               std::optional<std::uint64_t> seed)
    : splits_(splits), part_(static_cast<std::size_t>(count)) {
    if (splits < 1 || count < splits)
        core::fail("Inception Score: {} samples cannot be split into {} parts; use more samples",
                   count, splits);
    std::vector<std::int64_t> order(part_.size());
    std::iota(order.begin(), order.end(), 0);
    if (seed) order = core::RandomStream(*seed, "inception_score").permutation(count);
    for (std::int64_t part = 0; part < splits; ++part) {
        for (std::int64_t i = part * count / splits; i < (part + 1) * count / splits; ++i)
            part_[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = part;
    }
    entropies_ = at::zeros({splits}, at::kDouble);
    counts_ = at::zeros({splits}, at::kDouble);
}

void InceptionScore::add(std::int64_t first, const Tensor& logits) {
    if (!sums_.defined()) sums_ = at::zeros({splits_, logits.size(1)}, at::kDouble);
    const Tensor p = logits.to(at::kCPU, at::kDouble).softmax(1);
    const auto from = part_.begin() + first;
    const Tensor parts =
        at::tensor(std::vector<std::int64_t>(from, from + logits.size(0)), at::kLong);
    sums_.index_add_(0, parts, p);
    entropies_.index_add_(0, parts, at::xlogy(p, p).sum(1));  // 0 log 0 is 0
    counts_.index_add_(0, parts, at::ones({logits.size(0)}, at::kDouble));
}

MeanAndStd InceptionScore::finish() const {
    const Tensor mean = sums_ / counts_.unsqueeze(1);
    const Tensor scores = (entropies_ / counts_ - at::xlogy(mean, mean).sum(1)).exp();
    return {scores.mean().item<double>(), scores.std(/*unbiased=*/false).item<double>()};
}

MeanAndStd inception_score(const Tensor& logits, std::int64_t splits) {
    InceptionScore score(logits.size(0), splits, std::nullopt);
    score.add(0, logits);
    return score.finish();
}

double kernel_distance(const Tensor& a, const Tensor& b, const KernelDistance& settings) {
    const std::int64_t size = std::min({settings.subset_size, a.size(0), b.size(0)});
    if (size < 2 || settings.subsets < 1 || a.size(-1) != b.size(-1)) {
        core::fail(
            "kernel distance: {} subsets of {} samples of widths {} and {}; expected at least one "
            "subset of 2 samples of one width",
            settings.subsets, size, a.size(-1), b.size(-1));
    }
    double sum = 0;
    for (std::int64_t i = 0; i < settings.subsets; ++i) {
        const auto index = static_cast<std::uint64_t>(i);
        sum += unbiased_mmd(random_rows(a, size, {settings.seed, "kernel_distance/a", index}),
                            random_rows(b, size, {settings.seed, "kernel_distance/b", index}));
    }
    return sum / static_cast<double>(settings.subsets);
}

Tensor monge_directions(std::int64_t width, std::int64_t count, std::uint64_t seed) {
    core::RandomStream stream(seed, "monge/directions");
    std::vector<double> elements(static_cast<std::size_t>(count * width));
    for (double& element : elements) element = stream.normal();
    const Tensor lines = at::tensor(elements, at::kDouble).view({count, width});
    return (lines / lines.norm(2, {1}, true)).to(at::kFloat);
}

double monge_distance(const Tensor& a, const Tensor& b, std::int64_t directions,
                      std::uint64_t seed) {
    return monge_distance(a, b, monge_directions(a.size(-1), directions, seed), seed);
}

double monge_distance(const Tensor& a, const Tensor& b, const Tensor& directions,
                      std::uint64_t seed) {
    constexpr std::int64_t together = 64;  // directions, so that memory does not grow with them
    const std::int64_t width = a.size(-1), size = std::min(a.size(0), b.size(0)),
                       count = directions.size(0);
    if (size < 1 || count < 1 || width != b.size(-1) || width != directions.size(-1)) {
        core::fail(
            "Monge distance: sets of {} and {} samples of widths {} and {} in {} directions; "
            "expected samples of one width, and a direction",
            a.size(0), b.size(0), width, b.size(-1), count);
    }
    const auto rows_of = [&](const Tensor& rows, const char* stream) {
        if (rows.size(0) == size) return Tensor();
        std::vector<std::int64_t> order =
            core::RandomStream(seed, stream).permutation(rows.size(0));
        order.resize(static_cast<std::size_t>(size));
        return at::tensor(order);
    };
    const Tensor rows_a = rows_of(a, "monge/a"), rows_b = rows_of(b, "monge/b");
    const auto sorted = [](const Tensor& rows, const Tensor& chosen, const Tensor& lines) {
        const Tensor all = at::matmul(rows.to(at::kFloat), lines);
        return std::get<0>((chosen.defined() ? all.index_select(0, chosen) : all).sort(0));
    };
    double sum = 0;
    for (std::int64_t first = 0; first < count; first += together) {
        const Tensor lines = directions.narrow(0, first, std::min(together, count - first)).t();
        const Tensor apart = (sorted(a, rows_a, lines) - sorted(b, rows_b, lines)).to(at::kDouble);
        sum += apart.square().mean(0).sum().item<double>();
    }
    return 3 * static_cast<double>(width) * sum / static_cast<double>(count);
}

double whole_kernel_distance(const Tensor& a, const Tensor& b) {
    if (a.size(0) < 2 || b.size(0) < 2 || a.size(-1) != b.size(-1)) {
        core::fail(
            "kernel distance: sets of {} and {} samples of widths {} and {}; expected 2 samples or "
            "more of one width",
            a.size(0), b.size(0), a.size(-1), b.size(-1));
    }
    return unbiased_mmd(a.to(at::kCPU, at::kDouble), b.to(at::kCPU, at::kDouble));
}

PrecisionRecall precision_recall(const Tensor& real, const Tensor& real_radii, const Tensor& fake,
                                 std::int64_t k) {
    const Tensor fake_radii = neighbour_radii(fake, k);
    Tensor precise = at::zeros({fake.size(0)}, at::kBool);
    std::vector<Tensor> recalled;
    for_distance_blocks(real, fake, [&](std::int64_t first, const Tensor& distances) {
        precise.logical_or_(
            (distances <= real_radii.narrow(0, first, distances.size(0)).unsqueeze(1)).any(0));
        recalled.push_back((distances <= fake_radii).any(1));
    });
    return {fraction(precise), fraction(at::cat(recalled))};
}

PrecisionRecall precision_recall(const Tensor& real, const Tensor& fake, std::int64_t k) {
    return precision_recall(real, neighbour_radii(real, k), fake, k);
}

DensityCoverage density_coverage(const Tensor& real, const Tensor& real_radii, const Tensor& fake,
                                 std::int64_t k) {
    double inside_all = 0;
    std::vector<Tensor> covered;
    for_distance_blocks(real, fake, [&](std::int64_t first, const Tensor& distances) {
        const Tensor inside =
            distances < real_radii.narrow(0, first, distances.size(0)).unsqueeze(1);
        inside_all += inside.sum().item<double>();
        covered.push_back(inside.any(1));
    });
    return {inside_all / static_cast<double>(k * fake.size(0)), fraction(at::cat(covered))};
}

DensityCoverage density_coverage(const Tensor& real, const Tensor& fake, std::int64_t k) {
    return density_coverage(real, neighbour_radii(real, k), fake, k);
}

}  // namespace atelier::metrics
