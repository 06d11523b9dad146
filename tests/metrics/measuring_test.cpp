#include "atelier/metrics/measuring.h"

#include <gtest/gtest.h>

#include <set>

#include "atelier/core/error.h"
#include "atelier/core/npz.h"
#include "core/test_folder.h"

/// Tests of named protocols and of the evaluation of existing images.
namespace atelier::metrics {
namespace {

using core::error_of;

std::vector<std::int64_t> counts_of(const std::vector<std::int64_t>& classes, std::int64_t all) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(all));
    for (const std::int64_t i : classes) ++counts[static_cast<std::size_t>(i)];
    return counts;
}

const conditions::Prior uneven{{6, 0, 3, 1}};  // class 1 has weight 0

std::vector<std::int64_t> drawn(ClassDraws draws, std::int64_t count, std::uint64_t seed) {
    return inference::classes_of(drawn_classes(draws, count, seed, uneven));
}

TEST(ClassDraws, by_prior_and_uniform_have_low_discrepancy) {
    EXPECT_EQ(drawn(ClassDraws::prior, 1000, 5),
              inference::classes_of(inference::class_requests(1000, 5, {}, uneven)));
    const auto counts = counts_of(drawn(ClassDraws::uniform, 999, 5), 4);
    EXPECT_EQ(counts[1], 0);
    for (const std::size_t i : {0, 2, 3}) EXPECT_NEAR(static_cast<double>(counts[i]), 333, 3);
}

TEST(ClassDraws, independent_ones_vary_as_expected_by_chance) {
    const auto counts = counts_of(drawn(ClassDraws::iid, 3000, 5), 4);
    EXPECT_EQ(counts[1], 0);
    double square = 0;
    for (const std::size_t i : {0, 2, 3})
        square += std::pow(static_cast<double>(counts[i]) - 1000, 2) / 1000;
    EXPECT_LT(square, 13.8);  // chi-square with two degrees of freedom, one in a thousand
    EXPECT_GT(square, 0.002);
    EXPECT_NE(drawn(ClassDraws::iid, 50, 5), drawn(ClassDraws::iid, 50, 6));
    // Sample i does not depend on the count.
    const auto few = drawn(ClassDraws::iid, 10, 5), many = drawn(ClassDraws::iid, 50, 5);
    EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
}

TEST(ClassDraws, equal_ones_are_exact_or_rejected) {
    EXPECT_EQ(counts_of(drawn(ClassDraws::equal, 90, 5), 4),
              (std::vector<std::int64_t>{30, 0, 30, 30}));
    EXPECT_NE(error_of([] { drawn_classes(ClassDraws::equal, 100, 5, uneven); }).find("--count 99"),
              std::string::npos);
    EXPECT_NE(error_of([] { class_draws("equall"); }).find("did you mean \"equal\""),
              std::string::npos);
    for (const ClassDraws draws :
         {ClassDraws::prior, ClassDraws::uniform, ClassDraws::iid, ClassDraws::equal})
        EXPECT_EQ(class_draws(name_of(draws)), draws);
}

nlohmann::json figure(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return {{"mean", sum / static_cast<double>(values.size())}, {"values", values}};
}

TEST(Ratios, are_means_over_the_spaces_of_distances_by_those_of_real_images) {
    nlohmann::json models{
        {"ours",
         {{"metrics",
           {{"fid", figure({6, 10})}, {"dinov2_distance", figure({30, 50})}, {"fdr", 7}}},
          {"partition", "p"},
          {"cells",
           {{{"fid", figure({4, 4})}, {"dinov2_distance", figure({20, 20})}},
            {{"fid", {{"mean", nullptr}, {"values", {nullptr, nullptr}}}},
             {"dinov2_distance", figure({20, 20})}}}}}},
        {"one space", {{"metrics", {{"fid", figure({4})}, {"kid", figure({1})}}}}},
        {"none", {{"metrics", {{"strays", figure({4})}}}}},
        {"real images",
         {{"metrics", {{"fid", figure({1, 3})}, {"dinov2_distance", figure({10, 10})}}},
          {"partition", "p"},
          {"cells",
           {{{"fid", figure({4, 4})}, {"dinov2_distance", figure({5, 5})}},
            {{"fid", figure({4, 4})}, {"dinov2_distance", figure({5, 5})}}}}}}};
    add_ratios(models, "real images");
    const nlohmann::json& ratio = models["ours"]["metrics"]["fdr"];
    // (6/2 + 30/10)/2 and (10/2 + 50/10)/2
    EXPECT_EQ(ratio.at("values"), (std::vector<double>{3, 5}));
    EXPECT_EQ(ratio.at("mean"), 4);
    EXPECT_EQ(models["ours"]["fdr"].at("distances"),
              (std::vector<std::string>{"fid", "dinov2_distance"}));
    EXPECT_EQ(models["ours"]["cells"][0]["fdr"].at("mean"), 2.5);
    EXPECT_TRUE(models["ours"]["cells"][1]["fdr"].at("mean").is_null());
    EXPECT_EQ(models["one space"]["metrics"]["fdr"].at("mean"), 2);
    EXPECT_FALSE(models["none"]["metrics"].contains("fdr"));
    EXPECT_FALSE(models["none"].contains("cells"));
    EXPECT_FALSE(models["real images"]["metrics"].contains("fdr"));
    models.erase("real images");
    add_ratios(models, "real images");
    EXPECT_FALSE(models["ours"]["metrics"].contains("fdr")) << "of other real images";
    EXPECT_FALSE(models["ours"]["cells"][0].contains("fdr"));
}

TEST(NamedProtocols, are_those_of_their_papers) {
    const NamedProtocol ours = named_protocol("atelier", false), edm = named_protocol("edm", false),
                        classes = named_protocol("dmd2", false),
                        captions = named_protocol("dmd2", true),
                        clean = named_protocol("clean-fid", false);
    EXPECT_EQ(ours.classes, ClassDraws::prior);
    EXPECT_EQ(edm.classes, ClassDraws::iid);
    EXPECT_EQ(edm.count, 50000);
    EXPECT_EQ(classes.classes, ClassDraws::equal);
    EXPECT_EQ(classes.resize, InceptionResize::tensorflow)
        << "its ImageNet metrics use EDM's detector";
    EXPECT_EQ(captions.resize, InceptionResize::clean);
    EXPECT_EQ(captions.side, 256);
    EXPECT_EQ(captions.count, 30000);
    EXPECT_EQ(captions.caption_prefix, "A photo depicts ");
    EXPECT_EQ(clean.resize, InceptionResize::clean);
    EXPECT_EQ(clean.side, 0);
    EXPECT_EQ(clean.classes, ClassDraws::iid);
    EXPECT_EQ(clean.count, 50000);
    EXPECT_NE(error_of([] { named_protocol("edn", false); }).find("did you mean \"edm\""),
              std::string::npos);
}

/// 300 dark images, then 100 bright ones, 8x8, with their classes.
std::string sorted_images(const core::TestFolder& folder, const char* name,
                          std::uint64_t seed = 1) {
    std::vector<std::uint8_t> pixels;
    std::vector<std::int64_t> labels;
    core::RandomStream stream(seed, "pixels");
    for (int i = 0; i < 400; ++i) {
        labels.push_back(i >= 300);
        for (int p = 0; p < 64; ++p)
            pixels.push_back(static_cast<std::uint8_t>(stream.below(50) + (i >= 300 ? 200 : 0)));
    }
    core::write_npz(folder / name,
                    {{"arr_0", core::DType::U8, {400, 8, 8, 1}, std::as_bytes(std::span(pixels))},
                     {"labels", core::DType::I64, {400}, std::as_bytes(std::span(labels))}});
    return (folder / name).string();
}

TEST(MeasuredImages, are_a_seeded_sample_instead_of_the_first_ones) {
    const core::TestFolder folder;
    const std::string images = sorted_images(folder, "x.npz");
    EvaluationConfig config{.data = images, .classifier = "", .count = 40, .seeds = {0, 1}};
    testing::internal::CaptureStderr();
    const nlohmann::json result = measure_images(config, images).at("models").at(images);
    const std::string message = testing::internal::GetCapturedStderr();
    EXPECT_NE(message.find("a seeded sample of 40 of its 400 images"), std::string::npos)
        << message;
    EXPECT_EQ(result.at("classes")[0].at("count").at("mean"), 30);
    EXPECT_EQ(result.at("classes")[1].at("count").at("mean"), 10);
    EXPECT_LT(result.at("metrics").at("pixel_distance").at("mean").get<double>(), 0.5)
        << "the first forty are dark";
    EXPECT_EQ(result.at("metrics").at("pixel_distance").at("values").size(), 2U);
    EXPECT_FALSE(result.at("protocol").contains("classes")) << "none were drawn";

    config.count = 400;
    testing::internal::CaptureStderr();
    const nlohmann::json whole = measure_images(config, images).at("models").at(images);
    EXPECT_EQ(testing::internal::GetCapturedStderr().find("sample of"), std::string::npos);
    EXPECT_NEAR(whole.at("metrics").at("pixel_distance").at("mean").get<double>(), 0, 1e-6);
    EXPECT_EQ(whole.at("metrics").at("pixel_distance").at("values").size(), 1U);
}

TEST(MeasuredImages, are_resized_to_the_protocols_size_like_the_reference) {
    const core::TestFolder folder;
    const std::string images = sorted_images(folder, "x.npz");
    EvaluationConfig config{
        .data = images, .classifier = "", .protocol = {.name = "dmd2", .side = 4}, .count = 400};
    const nlohmann::json result = measure_images(config, images).at("models").at(images);
    EXPECT_NEAR(result.at("metrics").at("pixel_distance").at("mean").get<double>(), 0, 1e-6);
    EXPECT_EQ(result.at("protocol").at("size"), "middle square, Lanczos to 4x4");
    EXPECT_EQ(result.at("protocol").at("name"), "dmd2");
}

TEST(MeasuredImages, of_another_shape_than_the_data_are_rejected_before_evaluation) {
    const core::TestFolder folder;
    const std::string images = sorted_images(folder, "x.npz");
    const std::vector<std::uint8_t> pixels(10 * 6 * 6);
    core::write_npz(folder / "small.npz",
                    {{"arr_0", core::DType::U8, {10, 6, 6, 1}, std::as_bytes(std::span(pixels))}});
    const std::string message = error_of([&] {
        measure_images({.data = images, .classifier = "", .count = 10},
                       (folder / "small.npz").string());
    });
    EXPECT_NE(message.find("holds samples of [1,8,8], and those to be measured are [1,6,6]"),
              std::string::npos)
        << message;
}

TEST(MeasuredImages, beside_real_ones_have_the_ratio_of_their_distances) {
    const core::TestFolder folder;
    const std::string reference = sorted_images(folder, "reference.npz"),
                      real = sorted_images(folder, "real.npz", 2),
                      images = sorted_images(folder, "x.npz", 3);
    EvaluationConfig config{.data = reference, .classifier = "", .real = real, .count = 400};
    const nlohmann::json result = measure_images(config, images);
    EXPECT_EQ(result.at("order"), (std::vector<std::string>{images, "real images"}));
    const auto distance = [&](const std::string& row) {
        return result.at("models")
            .at(row)
            .at("metrics")
            .at("pixel_distance")
            .at("mean")
            .get<double>();
    };
    const double ratio =
        result.at("models").at(images).at("metrics").at("fdr").at("mean").get<double>();
    EXPECT_NEAR(ratio, distance(images) / distance("real images"), 1e-12);
    EXPECT_NEAR(ratio, 1, 0.3) << "both are drawn alike";
    config.real = reference;
    EXPECT_NE(error_of([&] { measure_images(config, images); }).find("measured against"),
              std::string::npos);
    const std::vector<std::uint8_t> pixels(10 * 8 * 8);
    core::write_npz(folder / "few.npz",
                    {{"arr_0", core::DType::U8, {10, 8, 8, 1}, std::as_bytes(std::span(pixels))}});
    config.real = (folder / "few.npz").string();
    EXPECT_NE(error_of([&] { measure_images(config, images); }).find("has 10 images, and 400"),
              std::string::npos);
}

TEST(MeasuredImages, without_a_reference_have_no_distance) {
    const core::TestFolder folder;
    const std::string images = sorted_images(folder, "x.npz");
    const nlohmann::json result =
        measure_images({.classifier = "", .count = 400}, images, {}, "mine")
            .at("models")
            .at("mine");
    EXPECT_TRUE(result.at("metrics").empty());
    EXPECT_EQ(result.at("protocol").at("model").at("name"), "mine");
}

}  // namespace
}  // namespace atelier::metrics
