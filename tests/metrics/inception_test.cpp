#include "atelier/metrics/inception.h"

#include <gtest/gtest.h>

#include <set>

#include "atelier/core/error.h"
#include "atelier/core/npz.h"
#include "atelier/metrics/evaluate.h"
#include "atelier/metrics/statistics_file.h"
#include "backends/tensors.h"
#include "core/test_folder.h"
#include "metrics/evaluation_fixtures.h"
#include "metrics/inception_fixture.h"

namespace atelier::metrics {
namespace {

using core::error_of;

const Inception& golden_inception() {
    static const Inception inception(golden_inception_state(), "golden");
    return inception;
}

TEST(Inception, features_and_logits_match_torch_fidelity) {
    const backends::Parameters golden = backends::read_parameters(
        ATELIER_SOURCE_DIR "/tests/golden/inception.safetensors", /*keep_types=*/true);
    const Features found =
        golden_inception().features(golden.at("images").to(at::kFloat) / 127.5 - 1);
    for (std::int64_t i = 0; i < found.features.size(0); ++i) {
        EXPECT_LT(backends::relative_distance(found.features[i], golden.at("features")[i]), 1e-4);
        EXPECT_LT(backends::relative_distance(found.logits[i], golden.at("logits")[i]), 1e-4);
    }
}

TEST(Inception, of_a_grey_image_equals_that_of_three_equal_channels) {
    const Tensor grey = at::linspace(-1, 1, 24 * 24).reshape({1, 1, 24, 24});
    EXPECT_TRUE(golden_inception().features(grey).features.equal(
        golden_inception().features(grey.expand({1, 3, 24, 24})).features));
    EXPECT_NE(error_of([&] {
                  golden_inception().features(at::zeros({1, 2, 8, 8}));
              }).find("1 or 3 channels"),
              std::string::npos);
}

TEST(Inception, resizes_like_tensorflow) {
    const Tensor line = at::tensor({0.0F, 10.0F, 30.0F}).reshape({1, 1, 1, 3});
    // 6 output pixels sample at 0, 0.5, 1, 1.5, 2, and beyond the last pixel the last.
    const Tensor expected = at::tensor({0.0F, 5.0F, 10.0F, 20.0F, 30.0F, 30.0F}).expand({6, 6});
    EXPECT_TRUE(at::allclose(resized_like_tensorflow(line, 6)[0][0], expected));
}

TEST(Inception, resizes_like_clean_fid) {
    const nlohmann::json cases = core::read_json(
        ATELIER_SOURCE_DIR
        "/tests/golden/clean_resize.json");  // by scripts/make_clean_resize_golden.py
    for (const auto& one : cases) {
        const std::int64_t height = one.at("height"), width = one.at("width"),
                           size = one.at("size");
        const Tensor y = at::arange(height).view({-1, 1}), x = at::arange(width).view({1, -1});
        const Tensor levels = (37 * y + 91 * x + 11 * x * y)
                                  .remainder(256)
                                  .to(at::kFloat)
                                  .view({1, 1, height, width});
        const auto expected = one.at("levels").get<std::vector<float>>();
        EXPECT_LT((resized_like_pillow(levels, size).flatten() - at::tensor(expected))
                      .abs()
                      .max()
                      .item<double>(),
                  1e-3)
            << height << "x" << width << " to " << size;
    }
}

TEST(Inception, features_depend_on_the_resize_method) {
    const Inception clean(golden_inception_state(), "golden", at::kCPU, InceptionResize::clean);
    const Tensor image = at::linspace(-1, 1, 3 * 20 * 20).reshape({1, 3, 20, 20}).sin();
    EXPECT_FALSE(
        at::allclose(clean.features(image).features, golden_inception().features(image).features));
    EXPECT_NE(clean.resizing(), golden_inception().resizing());
    // At the native size nothing is resized.
    const Tensor whole = at::linspace(-1, 1, 3 * 299 * 299).reshape({1, 3, 299, 299});
    EXPECT_TRUE(at::allclose(clean.features(whole).features,
                             golden_inception().features(whole).features, 1e-4, 1e-5));
}

TEST(Inception, reports_invalid_weights) {
    models::NamedTensors less = golden_inception_state(), other = less, broken = less;
    less.erase("Mixed_6e.branch7x7dbl_5.conv.weight");
    EXPECT_NE(error_of([&] {
                  Inception(less, "weights.pth");
              }).find("weights.pth: has no tensor \"Mixed_6e.branch7x7dbl_5.conv.weight\""),
              std::string::npos);
    other["Mixed_7a.branch3x3_2.conv.weight"] = [] { return at::zeros({320, 192, 1, 1}); };
    EXPECT_NE(error_of([&] {
                  Inception(other, "weights.pth");
              }).find("is [320,192,1,1], Inception-v3 has [320,192,3,3]"),
              std::string::npos);
    broken["fc.weight"] = [] { return at::full({1008, 2048}, NAN); };
    EXPECT_NE(error_of([&] { Inception(broken, "weights.pth"); }).find("not finite"),
              std::string::npos);
}

/// A stand-in for Inception in tests of names and bookkeeping: features are pixel averages over
/// four columns.
class Columns : public FeatureSpace {
public:
    Features features(const Tensor& images) const override {
        const Tensor columns = images.to(at::kFloat).mean({1, 2}).unflatten(1, {4, -1}).mean(2);
        return {columns, columns * 3};
    }
    std::int64_t width() const override { return 4; }
    const std::string& hash() const override { return hash_; }
    Kind kind() const override { return Kind::inception; }

private:
    std::string hash_ = "columns";
};

EvaluationTarget real_subject() { return {real_samples(halves(300, 3)), "real", {}}; }

Protocol small_protocol() {
    Protocol protocol;
    protocol.count = 200;
    protocol.kernel_subset_size = 100;
    return protocol;
}

TEST(Evaluator, on_inception_features_reports_fid_and_kid_without_class_agreement) {
    const Columns space;
    const nlohmann::json result =
        Evaluator(halves(400, 1), &space, small_protocol()).evaluate(real_subject());
    const auto& metrics = result.at("metrics");
    for (const char* name :
         {"fid", "kid", "mind", "inception_score", "precision", "recall", "density", "coverage"})
        EXPECT_TRUE(metrics.contains(name)) << name;
    for (const char* name : {"feature_distance", "class_agreement"})
        EXPECT_FALSE(metrics.contains(name)) << name;
    EXPECT_TRUE(result.at("classes").at(1).contains("fid"));
    EXPECT_FALSE(result.at("classes").at(1).contains("class_agreement"));
    EXPECT_EQ(result.at("protocol").at("inception"), "columns");
}

TEST(Evaluator, against_saved_statistics_gives_the_same_distance_as_against_the_data) {
    const core::TestFolder folder;
    const Columns space;
    const auto reference = halves(400, 1);
    const Evaluator against_data(reference, &space, small_protocol());
    write_statistics(folder / "reference.npz", *against_data.reference_statistics());
    const Evaluator against_file(read_statistics(folder / "reference.npz", 4), "hash",
                                 reference->spec(), space, small_protocol());
    const nlohmann::json a = against_data.evaluate(real_subject()),
                         b = against_file.evaluate(real_subject());
    EXPECT_DOUBLE_EQ(a["metrics"]["fid"]["mean"].get<double>(),
                     b["metrics"]["fid"]["mean"].get<double>());
    EXPECT_GT(a["metrics"]["fid"]["mean"].get<double>(), 0);
    EXPECT_FALSE(b["metrics"].contains("kid"));
    EXPECT_EQ(b["protocol"]["reference"]["hash"], "hash");
}

TEST(StatisticsFile, that_is_invalid_is_rejected_by_name) {
    const core::TestFolder folder;
    const auto rejected = [&](const Tensor& mu, const Tensor& sigma) {
        const auto bytes = [](const char* name, const Tensor& t) {
            return core::TensorBytes{
                name,
                core::DType::F64,
                t.sizes().vec(),
                {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()}};
        };
        core::write_npz(folder / "x.npz", {bytes("mu", mu), bytes("sigma", sigma)});
        return error_of([&] { read_statistics(folder / "x.npz", 3); });
    };
    const Tensor mu = at::zeros({3}, at::kDouble), sigma = at::eye(3, at::kDouble);
    EXPECT_NE(rejected(at::zeros({4}, at::kDouble), sigma).find("\"mu\" is [4]"),
              std::string::npos);
    EXPECT_NE(rejected(mu, at::zeros({3, 4}, at::kDouble)).find("\"sigma\" is [3,4]"),
              std::string::npos);
    EXPECT_NE(rejected(mu, sigma * NAN).find("not finite"), std::string::npos);
    EXPECT_NE(
        rejected(mu, sigma + at::tensor({1.0, 0.0, 0.0}).expand({3, 3})).find("not symmetric"),
        std::string::npos);
    EXPECT_NE(rejected(mu, -sigma).find("is not a covariance"), std::string::npos);
    EXPECT_NE(rejected(mu, at::diag(at::tensor({1.0, 2.0, -0.01}))).find("is not a covariance"),
              std::string::npos);
    // Symmetric with positive variances, but not a covariance: a correlation of two.
    EXPECT_NE(rejected(mu, sigma + at::ones({3, 3}, at::kDouble) * 2 - at::eye(3, at::kDouble) * 2)
                  .find("is not a covariance"),
              std::string::npos);
    const Tensor singular = at::diag(at::tensor({1.0, 2.0, 0.0}));
    const auto as_bytes = [](const char* name, const Tensor& t) {
        return core::TensorBytes{name,
                                 core::DType::F64,
                                 t.sizes().vec(),
                                 {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()}};
    };
    core::write_npz(folder / "singular.npz", {as_bytes("mu", mu), as_bytes("sigma", singular)});
    EXPECT_TRUE(at::equal(read_statistics(folder / "singular.npz", 3).covariance, singular));
}

TEST(StatisticsFile, is_read_whatever_other_arrays_it_contains) {
    const core::TestFolder folder;
    const std::string with_words = ATELIER_SOURCE_DIR
        "/tests/core/arrays/statistics.npz";  // by numpy: text, uint64, an object and a big-endian
                                              // array beside mu and sigma
    const Statistics read = read_statistics(with_words, 2);
    EXPECT_TRUE(at::allclose(read.mean, at::tensor({1.0, -2.0})));
    EXPECT_TRUE(at::allclose(read.covariance, at::tensor({2.0, 0.5, 0.5, 1.0}).view({2, 2})));
}

TEST(InceptionScore, is_between_one_and_the_number_of_classes) {
    EXPECT_NEAR(inception_score(at::zeros({40, 7})).mean, 1, 1e-12);
    const Tensor sure = 100 * at::eye(5).repeat({20, 1});
    const MeanAndStd score = inception_score(sure, 10);
    EXPECT_NEAR(score.mean, 5, 1e-6);
    EXPECT_NEAR(score.std_dev, 0, 1e-6);
}

TEST(InceptionScore, of_two_certain_classes_is_the_closed_form) {
    // A quarter of one class, three quarters of the other: exp of the entropy of (1/4, 3/4).
    const Tensor logits = 200 * at::eye(2).index_select(0, at::tensor({0, 1, 1, 1}, at::kLong));
    EXPECT_NEAR(inception_score(logits, 1).mean,
                std::exp(-0.25 * std::log(0.25) - 0.75 * std::log(0.75)), 1e-6);
}

TEST(InceptionScore, is_finite_for_extreme_logits) {
    for (const double gap : {100.0, 746.0, 800.0, 1e30}) {
        const Tensor sure = gap * at::eye(10, at::kDouble).repeat({10, 1});
        EXPECT_NEAR(inception_score(sure, 1).mean, 10, 1e-6) << gap;
    }
    const Tensor excluded =
        at::where(at::eye(4).repeat({5, 1}) > 0, 0.0, -std::numeric_limits<double>::infinity());
    EXPECT_NEAR(inception_score(excluded, 1).mean, 4, 1e-6);
}

TEST(InceptionScore, of_samples_sorted_by_class_equals_that_of_shuffled_ones) {
    const Tensor sorted = 100 * at::eye(10).repeat_interleave(100, 0);
    EXPECT_NEAR(inception_score(sorted, 10).mean, 1, 1e-6)
        << "each consecutive part has a single class";
    InceptionScore score(1000, 10, 3);
    for (std::int64_t first = 0; first < 1000; first += 128)
        score.add(first, sorted.narrow(0, first, std::min<std::int64_t>(128, 1000 - first)));
    EXPECT_GT(score.finish().mean, 9);
    EXPECT_LE(score.finish().mean, 10 + 1e-9);
}

TEST(FrechetDistance, of_few_wide_rows_equals_that_of_their_covariances) {
    const Tensor a = random_rows(9, 30, 1) * 1.5 + 0.2, b = random_rows(12, 30, 2);
    EXPECT_NEAR(frechet_distance(a, b), frechet_distance(statistics_of(a), statistics_of(b)), 1e-6);
    EXPECT_NEAR(frechet_distance(a, a), 0, 1e-9);
}

}  // namespace
}  // namespace atelier::metrics
