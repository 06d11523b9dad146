#include "atelier/metrics/distances.h"

#include <gtest/gtest.h>

#include <cmath>

#include "atelier/metrics/nearest.h"
#include "atelier/metrics/two_d.h"
#include "core/test_folder.h"
#include "metrics/evaluation_fixtures.h"

namespace atelier::metrics {
namespace {

using core::error_of;

Statistics gaussian(std::vector<double> mean, const Tensor& covariance) {
    return {at::tensor(mean), covariance.to(at::kDouble), 100};
}

Tensor diagonal(std::vector<double> variances) { return at::diag(at::tensor(variances)); }

TEST(FrechetDistance, of_one_dimensional_gaussians_is_the_closed_form) {
    const double distance =
        frechet_distance(gaussian({1}, diagonal({9})), gaussian({-1}, diagonal({0.25})));
    EXPECT_NEAR(distance, 4 + std::pow(3 - 0.5, 2), 1e-12);
}

TEST(FrechetDistance, of_diagonal_gaussians_adds_up_over_the_axes) {
    const double distance = frechet_distance(gaussian({0, 1, 2}, diagonal({1, 4, 0.01})),
                                             gaussian({0, 0, 0}, diagonal({4, 4, 1})));
    EXPECT_NEAR(distance, 1 + 4 + 1 + 0 + 0.81, 1e-12);
}

TEST(FrechetDistance, of_a_set_to_itself_is_zero_even_with_a_singular_covariance) {
    const Statistics all = statistics_of(random_rows(300, 20, 1)),
                     few = statistics_of(random_rows(5, 20, 1));
    EXPECT_NEAR(frechet_distance(all, all), 0, 1e-10);
    EXPECT_NEAR(frechet_distance(few, few), 0, 1e-10);
}

TEST(FrechetDistance, of_covariances_of_rank_one_is_the_closed_form) {
    const Tensor u = at::tensor({1.0, 2.0, 0.0}), v = at::tensor({3.0, -1.0, 2.0});
    const double distance = frechet_distance(gaussian({0, 0, 0}, at::outer(u, u)),
                                             gaussian({0, 0, 0}, at::outer(v, v)));
    EXPECT_NEAR(distance, 5 + 14 - 2 * 1, 1e-7);  // tr S1 + tr S2 - 2 |u.v|
}

TEST(FrechetDistance, agrees_with_scipy_and_is_symmetric) {
    const Statistics a = statistics_of(golden_rows("a")), b = statistics_of(golden_rows("b"));
    EXPECT_NEAR(frechet_distance(a, b), golden("frechet"), 1e-8);
    EXPECT_NEAR(frechet_distance(b, a), golden("frechet"), 1e-8);
}

TEST(FrechetDistance, rejects_features_of_different_widths) {
    const auto message = error_of(
        [] { frechet_distance(gaussian({0}, diagonal({1})), gaussian({0, 0}, diagonal({1, 1}))); });
    EXPECT_NE(message.find("features of widths 1 and 2"), std::string::npos) << message;
}

TEST(FrechetDistance, rejects_invalid_covariances_instead_of_returning_zero) {
    const Statistics good = gaussian({0, 0}, diagonal({1, 4})),
                     negative = gaussian({0, 0}, diagonal({-1, -4})),
                     half = gaussian({0, 0}, diagonal({4, -0.1}));
    for (const Statistics* bad : {&negative, &half}) {
        EXPECT_NE(error_of([&] { frechet_distance(good, *bad); }).find("not a covariance"),
                  std::string::npos);
        EXPECT_NE(error_of([&] { frechet_distance(*bad, good); }).find("not a covariance"),
                  std::string::npos);
    }
}

TEST(FeatureStatistics, match_numpy_however_the_rows_are_split) {
    const Tensor rows = golden_rows("a");
    FeatureStatistics split(rows.size(1));
    for (const Tensor& part : rows.split_with_sizes({1, 0, 26, 13})) split.add(part);
    EXPECT_TRUE(at::allclose(split.finish().covariance, golden_rows("covariance_a"), 0, 1e-12));
    EXPECT_TRUE(at::allclose(split.finish().mean, rows.mean(0), 0, 1e-12));
    EXPECT_EQ(split.finish().count, 40);
}

TEST(FeatureStatistics, are_accurate_far_from_the_origin) {
    const Tensor rows = random_rows(500, 3, 2);
    const Tensor near = statistics_of(rows).covariance, far = statistics_of(rows + 1e7).covariance;
    EXPECT_TRUE(at::allclose(near, far, 1e-6, 1e-7));
}

TEST(FeatureStatistics, reject_non_finite_or_too_few_rows) {
    FeatureStatistics statistics(2);
    EXPECT_NE(error_of([&] { statistics.add(at::full({3, 2}, NAN)); }).find("not finite"),
              std::string::npos);
    EXPECT_NE(error_of([&] { statistics.add(at::zeros({3, 4})); }).find("rows of 2 features"),
              std::string::npos);
    statistics.add(at::zeros({1, 2}));
    EXPECT_NE(error_of([&] { statistics.finish(); }).find("2 samples"), std::string::npos);
}

TEST(KernelDistance, agrees_with_numpy_on_whole_sets) {
    EXPECT_NEAR(kernel_distance(golden_rows("a"), golden_rows("b"),
                                {.subsets = 3, .subset_size = 40, .seed = 5}),
                golden("kernel"), 1e-9);
}

TEST(KernelDistance, is_about_zero_for_one_distribution_and_grows_with_a_shift) {
    const Tensor a = random_rows(1000, 8, 3), b = random_rows(1000, 8, 4);
    const KernelDistance settings{.subsets = 5, .subset_size = 400, .seed = 1};
    EXPECT_NEAR(kernel_distance(a, b, settings), 0, 0.05);
    EXPECT_GT(kernel_distance(a, b + 1, settings), 0.5);
    EXPECT_EQ(kernel_distance(a, b, settings), kernel_distance(a, b, settings));
    EXPECT_NE(kernel_distance(a, b, settings),
              kernel_distance(a, b, {.subsets = 5, .subset_size = 400, .seed = 2}));
}

TEST(KernelDistance, of_whole_sets_agrees_with_numpy_and_is_unbiased_for_few_samples) {
    EXPECT_NEAR(whole_kernel_distance(golden_rows("a"), golden_rows("b")), golden("kernel"), 1e-9);
    double kernel = 0, frechet = 0;
    for (std::uint64_t i = 0; i < 40; ++i) {
        const Tensor a = random_rows(20, 50, 100 + i), b = random_rows(20, 50, 200 + i);
        kernel += whole_kernel_distance(a, b) / 40;
        frechet += frechet_distance(a, b) / 40;
    }
    EXPECT_NEAR(kernel, 0, 0.05);
    EXPECT_GT(frechet, 30) << "of one distribution";
    EXPECT_NE(error_of([] {
                  whole_kernel_distance(at::zeros({1, 3}), at::zeros({5, 3}));
              }).find("2 samples"),
              std::string::npos);
}

TEST(MongeDistance, of_one_feature_is_that_of_the_sorted_values) {
    const Tensor a = at::tensor({5.0F, 0.0F, 2.0F}).view({3, 1}), b = at::ones({3, 1});
    EXPECT_NEAR(monge_distance(a, b, 3, 1), 3 * (1 + 1 + 16) / 3.0, 1e-5);
    EXPECT_NEAR(monge_distance(at::zeros({10, 1}), at::ones({4, 1}), 5, 1), 3, 1e-6);
}

TEST(MongeDistance, agrees_with_torch_fidelity) {
    // Made by scripts/make_mind_golden.py.
    const nlohmann::json golden = core::read_json(ATELIER_SOURCE_DIR "/tests/golden/mind.json");
    const auto rows = [&](const char* name) {
        std::vector<double> numbers;
        const auto all = golden.at(name).get<std::vector<std::vector<double>>>();
        for (const auto& row : all) numbers.insert(numbers.end(), row.begin(), row.end());
        return at::tensor(numbers)
            .reshape({static_cast<std::int64_t>(all.size()), -1})
            .to(at::kFloat);
    };
    const double expected = golden.at("mind").get<double>();
    EXPECT_NEAR(monge_distance(rows("a"), rows("b"), rows("directions"), 0) / expected, 1, 1e-5);
    const Tensor directions = monge_directions(5, 40, 3);
    EXPECT_LT((directions.norm(2, {1}) - 1).abs().max().item<double>(), 1e-6);
    EXPECT_EQ(monge_distance(rows("a"), rows("b"), directions, 3),
              monge_distance(rows("a"), rows("b"), 40, 3));
    EXPECT_NE(error_of([&] {
                  monge_distance(rows("a"), rows("b"), monge_directions(4, 2, 0), 0);
              }).find("one width"),
              std::string::npos);
}

TEST(MongeDistance, of_shifted_sets_is_three_times_the_squared_shift) {
    const Tensor a = random_rows(500, 12, 3), b = random_rows(700, 12, 4),
                 shift = at::linspace(-1, 1, 12);
    EXPECT_EQ(monge_distance(a, a, 50, 7), 0);
    // The mean of (u.m)^2 over directions u is |m|^2 / F; 4000 of them leave a few per cent.
    EXPECT_NEAR(monge_distance(a, a + shift, 4000, 7) / (3 * shift.square().sum().item<double>()),
                1, 0.08);
    EXPECT_EQ(monge_distance(a, b, 70, 7), monge_distance(a, b, 70, 7));
    EXPECT_NE(monge_distance(a, b, 70, 7), monge_distance(a, b, 70, 8));
    EXPECT_GT(monge_distance(a, b + shift, 70, 7), 10 * monge_distance(a, b, 70, 7));
    EXPECT_NE(error_of([&] { monge_distance(a, at::zeros({5, 3}), 9, 0); }).find("one width"),
              std::string::npos);
}

TEST(KernelDistance, uses_subsets_of_sets_that_would_exceed_memory_in_float64) {
    // Would take 160 GB; here one row is expanded.
    const Tensor huge = at::ones({1, 2048}).expand({10'000'000, 2048});
    EXPECT_NEAR(kernel_distance(huge, huge, {.subsets = 2, .subset_size = 10}), 0, 1e-9);
}

TEST(PrecisionRecall, agrees_with_numpy) {
    const PrecisionRecall found = precision_recall(golden_rows("a"), golden_rows("b"), 3);
    EXPECT_NEAR(found.precision, golden("precision"), 1e-12);
    EXPECT_NEAR(found.recall, golden("recall"), 1e-12);
}

TEST(PrecisionRecall, distinguishes_a_collapsed_model_from_a_shifted_one) {
    const Tensor real = random_rows(500, 4, 5),
                 copies = real.slice(0, 0, 1).expand({200, 4}) + 1e-6 * random_rows(200, 4, 6);
    EXPECT_EQ(precision_recall(real, real).precision, 1);
    EXPECT_EQ(precision_recall(real, real).recall, 1);
    EXPECT_EQ(precision_recall(real, copies).precision, 1);
    EXPECT_LT(precision_recall(real, copies).recall, 0.01);
    EXPECT_EQ(precision_recall(real, real + 100).precision, 0);
    EXPECT_EQ(precision_recall(real, real + 100).recall, 0);
}

TEST(DensityCoverage, agrees_with_numpy_and_is_one_for_the_real_set) {
    const DensityCoverage found = density_coverage(golden_rows("a"), golden_rows("b"), 5);
    EXPECT_NEAR(found.density, golden("density"), 1e-12);
    EXPECT_NEAR(found.coverage, golden("coverage"), 1e-12);
    const Tensor real = random_rows(400, 4, 7);
    EXPECT_NEAR(density_coverage(real, real).density, 1, 1e-12);
    EXPECT_EQ(density_coverage(real, real).coverage, 1);
}

TEST(Nearest, over_many_blocks_equals_one_distance_matrix) {
    for (const std::int64_t width : {2, 40}) {  // subtracted exactly, and by a matrix product
        const Tensor queries = random_rows(1500, width, 8),
                     candidates = random_rows(6000, width, 9);
        const Nearest found = nearest(queries, candidates, 3);
        const auto [distances, indices] = at::cdist(queries, candidates).topk(3, 1, false);
        EXPECT_TRUE(at::equal(found.indices, indices));
        EXPECT_TRUE(at::allclose(found.distances, distances, 0, 1e-9));
    }
}

TEST(Nearest, radii_exclude_the_point_itself) {
    const Tensor radii = neighbour_radii(at::tensor({0.0, 1.0, 3.0}).unsqueeze(1), 1);
    EXPECT_TRUE(at::equal(radii, at::tensor({1.0, 1.0, 2.0})));
    EXPECT_NE(error_of([] { neighbour_radii(at::zeros({3, 2}), 3); }).find("too few"),
              std::string::npos);
}

// Points
// ------

TEST(SlicedWasserstein, agrees_with_numpy_quantiles_for_sets_of_unequal_size) {
    const double distance = sliced_wasserstein(golden_rows("points_a"), golden_rows("points_b"),
                                               golden_rows("directions"));
    EXPECT_NEAR(distance, golden("sliced_wasserstein"), 1e-12);
}

TEST(SlicedWasserstein, of_a_shift_is_its_length_times_two_over_pi) {
    const Tensor points = random_rows(1000, 2, 10);
    EXPECT_NEAR(sliced_wasserstein(points, points + at::tensor({3.0, 4.0}), 4096), 5 * 2 / M_PI,
                0.05);
    EXPECT_EQ(sliced_wasserstein(points, points), 0);
}

TEST(SlicedWasserstein, directions_are_unit_vectors_of_the_seed) {
    EXPECT_TRUE(
        at::allclose(random_directions(50, 3, 1).norm(2, {1}), at::ones({50}, at::kDouble)));
    EXPECT_TRUE(at::equal(random_directions(50, 3, 1), random_directions(50, 3, 1)));
    EXPECT_FALSE(at::equal(random_directions(50, 3, 1), random_directions(50, 3, 2)));
}

TEST(MmdSquared, agrees_with_numpy) {
    const Tensor a = golden_rows("points_a"), b = golden_rows("points_b");
    EXPECT_NEAR(mmd_squared(a, b, {.bandwidths = {0.5}}), golden("mmd_at_half"), 1e-12);
    EXPECT_NEAR(mmd_squared(a, b), golden("mmd_by_median"), 1e-12);
}

TEST(MmdSquared, detects_a_difference_in_a_subset_of_many_points) {
    const Tensor a = random_rows(3000, 2, 11), b = random_rows(3000, 2, 12);
    EXPECT_NEAR(mmd_squared(a, b), 0, 2e-3);
    EXPECT_GT(mmd_squared(a, b * 2), 0.02);
}

TEST(Modes, count_points_within_four_standard_deviations_of_a_centre) {
    const Tensor centres = at::tensor({0.0, 0.0, 10.0, 0.0, 0.0, 10.0}).reshape({3, 2});
    const Tensor reference = centres.repeat({10, 1});
    // 6 near the first centre, 1 near the second, none near the third, 1 at four standard
    // deviations from the second.
    const Tensor points = at::cat({at::full({6, 2}, 0.1), at::tensor({10.0, 0.39}).unsqueeze(0),
                                   at::tensor({10.0, 0.41}).unsqueeze(0)});
    const ModeReport report = modes(points, reference, centres, 0.1);
    EXPECT_EQ(report.shares, (std::vector<double>{6.0 / 8, 1.0 / 8, 0}));
    EXPECT_EQ(report.reached, 1);
    EXPECT_EQ(report.worst, 0);
    EXPECT_EQ(report.strays, 1.0 / 8);
}

TEST(Support, accepts_true_points_and_rejects_strays) {
    const Tensor reference =
        at::cat({random_rows(2000, 2, 13) * 0.1, random_rows(1000, 2, 14) * 0.1 + 3});
    std::vector<std::int64_t> labels(3000, 0);
    std::fill(labels.begin() + 2000, labels.end(), 1);
    const Support support(reference, labels, 2);
    const Tensor points = at::cat({random_rows(500, 2, 15) * 0.1, random_rows(400, 2, 16) * 0.1 + 3,
                                   at::full({100, 2}, 1.5)});
    const ModeReport report = support.modes(support.classes_of(points));
    EXPECT_NEAR(report.strays, 0.1, 0.003);
    EXPECT_NEAR(report.shares[0], 0.5, 0.003);
    EXPECT_NEAR(report.reference_shares[0], 2.0 / 3, 1e-9);
    EXPECT_EQ(report.reached, 2);
    EXPECT_NEAR(report.worst, 0.75, 0.005);
    EXPECT_EQ(
        support.classes_of(
            at::tensor({0.0, 0.0, 3.0, 3.0, 1.5, 1.5, NAN, 0.0}, at::kDouble).reshape({4, 2})),
        (std::vector<std::int64_t>{0, 1, -1, -1}));
}

}  // namespace
}  // namespace atelier::metrics
