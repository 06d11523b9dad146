#include "atelier/metrics/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "atelier/core/atomic_file.h"
#include "atelier/data/sampling.h"
#include "atelier/metrics/inception.h"
#include "atelier/metrics/latency.h"
#include "atelier/metrics/neighbours.h"
#include "atelier/metrics/sample_counts.h"
#include "core/test_folder.h"
#include "metrics/evaluation_fixtures.h"

namespace atelier::metrics {
namespace {

using core::error_of;

const networks::ClassifierConfig small{
    .resolution = 8, .channels = 1, .classes = 2, .width = 8, .features = 16};

distillation::BatchSource batches_of(std::shared_ptr<const data::Dataset> dataset) {
    return [draw = real_samples(std::move(dataset))](
               std::int64_t step) -> distillation::LabelledBatch {
        const Samples samples = draw(32, static_cast<std::uint64_t>(step));
        return {samples.model_space, samples.labels};
    };
}

/// A classifier of `halves`, trained for a few steps of plain gradient descent.
FeatureExtractor trained() {
    backends::Parameters parameters = init_classifier(small, 1);
    parameters.require_gradients(true);
    Classification stage(small, parameters, batches_of(halves(400, 1)),
                         {.steps = 40, .shift = 1, .label_smoothing = 0.05});
    for (std::int64_t step = 0; step < stage.steps(); ++step) {
        const distillation::Loss loss = stage.loss(0, step, 0, 0);
        const auto gradients = torch::autograd::grad({loss.value}, parameters.list());
        at::NoGradGuard no_gradients;
        const std::vector<Tensor> list = parameters.list();
        for (std::size_t i = 0; i < list.size(); ++i) Tensor(list[i]).sub_(gradients[i], 0.1);
    }
    return FeatureExtractor(small, parameters.clone());
}

const FeatureExtractor& extractor() {
    static const FeatureExtractor one = trained();
    return one;
}

Protocol small_protocol(std::int64_t count) {
    Protocol protocol;
    protocol.count = count;
    protocol.seeds = {1, 2, 3};
    protocol.reference_path = "/data/halves";
    protocol.program = "atelier 0.1.0";
    protocol.manifold_limit = 150;
    protocol.kernel_subsets = 3;
    return protocol;
}

double mean_of(const nlohmann::json& result, const std::string& name) {
    return result.at("metrics").at(name).at("mean").get<double>();
}

TEST(Classification, learns_to_separate_classes) {
    EXPECT_GT(accuracy(extractor(), *halves(200, 2)), 0.95);
    EXPECT_LT(accuracy(FeatureExtractor(small, init_classifier(small, 1)), *halves(200, 2)), 0.9);
}

TEST(Classification, loss_is_a_function_of_the_step) {
    backends::Parameters parameters = init_classifier(small, 1);
    Classification stage(small, parameters, batches_of(halves(400, 1)), {});
    const double third = stage.loss(0, 3, 0, 0).value.item<double>();
    EXPECT_NE(third, stage.loss(0, 4, 0, 0).value.item<double>());
    EXPECT_EQ(third, stage.loss(0, 3, 0, 0).value.item<double>());
    EXPECT_EQ(stage.learners().size(), 1u);
    const Tensor noise = at::ones({2, 1, 8, 8});
    EXPECT_TRUE(at::equal(stage.sample(parameters, noise, {}), noise));
}

TEST(Classification, shifts_move_whole_images_and_replicate_their_border) {
    Tensor image = at::zeros({30, 1, 8, 8});
    image.narrow(3, 0, 1).fill_(1);  // the left column is bright
    const Tensor moved = randomly_shifted(image, 2, 7, "shift", 0);
    const Tensor columns =
        moved.sum({1, 2, 3}) / 8;  // bright columns: 0 (moved left) to 3 (moved right)
    EXPECT_EQ(columns.min().item<double>(), 0);
    EXPECT_EQ(columns.max().item<double>(), 3);
    EXPECT_TRUE(at::equal(columns, columns.round()));
    EXPECT_TRUE(at::equal(randomly_shifted(image, 0, 7, "shift", 0), image));
}

TEST(FeatureExtractor, reads_what_was_written_and_gives_the_same_features_in_any_batch) {
    core::TestFolder folder;
    write_classifier(folder / "classifier", small, init_classifier(small, 3), {{"seed", 3}});
    const FeatureExtractor read(folder / "classifier"), made(small, init_classifier(small, 3));
    EXPECT_EQ(read.hash(), made.hash());
    const Tensor images = random_rows(300, 64, 1).reshape({300, 1, 8, 8}).to(at::kFloat);
    EXPECT_TRUE(at::equal(read.features(images).logits, made.features(images).logits));
    EXPECT_TRUE(at::allclose(read.features(images).features[299],
                             read.features(images.narrow(0, 299, 1)).features[0], 1e-4, 1e-5));
    EXPECT_EQ(core::read_json(folder / "classifier/config.json").at("seed"), 3);
}

TEST(FeatureExtractor, reports_invalid_directories_and_images) {
    core::TestFolder folder;
    EXPECT_NE(error_of([&] { FeatureExtractor{folder.path()}; }).find("no classifier here"),
              std::string::npos);
    networks::ClassifierConfig wider = small;
    wider.width = 12;
    write_classifier(folder.path(), wider, init_classifier(small, 3), {});
    EXPECT_NE(error_of([&] { FeatureExtractor{folder.path()}; }).find("classifier.safetensors"),
              std::string::npos);
    EXPECT_NE(error_of([] { extractor().features(at::zeros({2, 1, 9, 9})); }).find("[1,9,9]"),
              std::string::npos);
}

TEST(Evaluator, of_real_images_gives_near_perfect_metrics) {
    const auto reference = halves(400, 1);
    const Evaluator evaluator(reference, &extractor(), small_protocol(150));
    const nlohmann::json real = evaluator.evaluate({real_samples(halves(300, 5)), "abc"});
    EXPECT_GT(mean_of(real, "precision"), 0.85);
    EXPECT_GT(mean_of(real, "recall"), 0.85);
    EXPECT_GT(mean_of(real, "coverage"), 0.85);
    EXPECT_NEAR(mean_of(real, "density"), 1, 0.2);
    EXPECT_GT(mean_of(real, "class_agreement"), 0.95);
    const auto noise = [](std::int64_t count, std::uint64_t seed) {
        return Samples{random_rows(count, 64, seed).reshape({count, 1, 8, 8}).to(at::kFloat),
                       std::vector<std::int64_t>(static_cast<std::size_t>(count), 0)};
    };
    const nlohmann::json fake = evaluator.evaluate({noise, "abc"});
    EXPECT_GT(mean_of(fake, "feature_distance"), 20 * mean_of(real, "feature_distance"));
    EXPECT_GT(mean_of(fake, "kernel_feature_distance"), mean_of(real, "kernel_feature_distance"));
    EXPECT_GT(mean_of(fake, "monge_feature_distance"), 3 * mean_of(real, "monge_feature_distance"));
    EXPECT_LT(mean_of(fake, "precision"), 0.2);
}

TEST(Evaluator, writes_protocol_spread_and_one_row_per_class) {
    const auto reference = halves(400, 1);
    const Evaluator evaluator(reference, &extractor(), small_protocol(100));
    const nlohmann::json result =
        evaluator.evaluate({real_samples(halves(300, 5)), "abc", {{"sampler", "one-step"}}});
    const nlohmann::json& protocol = result.at("protocol");
    EXPECT_EQ(protocol.at("count"), 100);
    EXPECT_EQ(protocol.at("seeds"), (std::vector<int>{1, 2, 3}));
    EXPECT_EQ(
        protocol.at("reference"),
        (nlohmann::json{{"path", "/data/halves"}, {"hash", reference->hash()}, {"count", 400}}));
    EXPECT_EQ(protocol.at("model"), (nlohmann::json{{"hash", "abc"}, {"sampler", "one-step"}}));
    EXPECT_EQ(protocol.at("classifier"), extractor().hash());
    EXPECT_EQ(protocol.at("quantisation"), "clamp(x*127.5+128, 0, 255) to uint8");
    EXPECT_EQ(protocol.at("program"), "atelier 0.1.0");
    EXPECT_EQ(protocol.at("name"), "atelier");
    const nlohmann::json& distance = result.at("metrics").at("feature_distance");
    const auto values = distance.at("values").get<std::vector<double>>();
    const double mean = (values[0] + values[1] + values[2]) / 3;
    EXPECT_NEAR(distance.at("mean").get<double>(), mean, 1e-12);
    EXPECT_NEAR(distance.at("spread").get<double>(),
                std::sqrt((std::pow(values[0] - mean, 2) + std::pow(values[1] - mean, 2) +
                           std::pow(values[2] - mean, 2)) /
                          2),
                1e-12);
    EXPECT_EQ(result.at("classes").at(1).at("name"), "right");
    EXPECT_GT(result.at("classes").at(1).at("feature_distance").at("mean").get<double>(), 0);
    EXPECT_EQ(evaluator.evaluate({real_samples(halves(300, 5)), "abc", {{"sampler", "one-step"}}}),
              result);
}

TEST(Evaluator, leaves_metrics_of_classes_without_samples_undefined) {
    Protocol protocol = small_protocol(50);
    protocol.seeds = {1};
    const Evaluator evaluator(halves(400, 1), &extractor(), protocol);
    const auto draw = [](std::int64_t count, std::uint64_t) {
        return Samples{at::zeros({count, 1, 8, 8}),
                       std::vector<std::int64_t>(static_cast<std::size_t>(count), 0)};
    };
    const nlohmann::json row = evaluator.evaluate({draw, ""}).at("classes").at(1);
    EXPECT_EQ(row.at("count").at("mean"), 0);
    EXPECT_TRUE(row.at("feature_distance").at("mean").is_null());
    EXPECT_TRUE(row.at("count").at("spread").is_null());
}

/// Samples that are read in batches; checks that each row is read once, in order.
SampleSource in_batches(const std::shared_ptr<const data::Dataset>& dataset,
                        std::int64_t& rows_read) {
    return [dataset, &rows_read](std::int64_t count, std::uint64_t seed) {
        const Samples all = real_samples(dataset)(count, seed);
        rows_read = 0;
        return Samples{.model_space = {},
                       .labels = all.labels,
                       .count = count,
                       .read = [all, &rows_read](std::int64_t first, std::int64_t n) {
                           EXPECT_EQ(first, rows_read);
                           rows_read += n;
                           return all.model_space.narrow(0, first, n);
                       }};
    };
}

TEST(Evaluator, uses_all_samples_for_statistics_and_keeps_a_sample_of_features) {
    const auto reference = halves(400, 1), real = halves(300, 5);
    Protocol bounded = small_protocol(200);
    bounded.kept_features = 60;
    std::int64_t rows_read = 0;
    const nlohmann::json all = Evaluator(reference, &extractor(), small_protocol(200))
                                   .evaluate({real_samples(real), ""}),
                         few = Evaluator(reference, &extractor(), bounded)
                                   .evaluate({in_batches(real, rows_read), ""});
    EXPECT_EQ(rows_read, 200);
    EXPECT_NEAR(mean_of(few, "feature_distance"), mean_of(all, "feature_distance"), 1e-9);
    EXPECT_NEAR(mean_of(few, "class_agreement"), mean_of(all, "class_agreement"), 1e-12);
    EXPECT_NEAR(mean_of(few, "kernel_feature_distance"), mean_of(all, "kernel_feature_distance"),
                0.5);
    EXPECT_EQ(few.at("protocol").at("kept"), (nlohmann::json{{"reference", 60}, {"samples", 60}}));
    EXPECT_EQ(all.at("protocol").at("kept"),
              (nlohmann::json{{"reference", 400}, {"samples", 200}}));
    for (const auto& row : few.at("classes")) {
        EXPECT_NEAR(row.at("count").at("mean").get<double>(), 100, 15);
        EXPECT_EQ(row.at("reference_count").at("mean"), 30) << "each class in proportion";
        EXPECT_TRUE(row.at("kernel_feature_distance").at("mean").is_number());
        EXPECT_TRUE(row.at("monge_feature_distance").at("mean").is_number());
    }
}

TEST(Evaluator, of_parts_that_several_processes_made_gives_the_same_result) {
    const core::TestFolder folder;
    const auto reference = halves(2100, 1), real = halves(4500, 5);  // two batches, and three
    Protocol protocol = small_protocol(4100);
    protocol.seeds = {1, 2};
    const Thumbnails pixels(1);
    const EvaluationTarget target{real_samples(real), "abc", {{"name", "real"}}};
    const nlohmann::json whole = Evaluator(reference, &pixels, protocol).evaluate(target);
    for (const std::int64_t index : {2, 0, 1}) {
        const auto parts = std::make_shared<EvaluationParts>(
            folder / "parts", folder / "evaluation.json", core::Shard{index, 3});
        Evaluator evaluator(reference, &pixels, protocol, parts);
        parts->begin({{"real", evaluator.protocol_of(target)}});
        evaluator.share_reference();
        evaluator.share(target);
        EXPECT_EQ(parts->batches(), 2 + 2 * 3);
        EXPECT_EQ(parts->complete(), index == 1) << "the last of them";
        if (index == 2) {
            EXPECT_EQ(parts->standing(),
                      "shard 3/3 is done; 2 of 8 parts are there, and the shard that finds them "
                      "all writes " +
                          (folder / "evaluation.json").string());
        }
        if (!parts->complete()) continue;
        evaluator.read_reference();
        EXPECT_EQ(evaluator.evaluate(target), whole);
        EXPECT_FALSE(parts->removed_by_another());
        parts->remove();
        EXPECT_TRUE(parts->removed_by_another());
    }
}

TEST(EvaluationParts, of_shards_that_run_at_once_are_all_found_by_the_last_to_ask) {
    const core::TestFolder folder;
    EvaluationParts first(folder / "parts", folder / "evaluation.json", {0, 2}),
        second(folder / "parts", folder / "evaluation.json", {1, 2});
    const auto rows = [] { return backends::Parameters({{"features", at::zeros({1, 2})}}); };
    for (EvaluationParts* parts : {&first, &second}) parts->begin({{"model", 1}});
    for (const std::int64_t row : {0, 1, 2, 3}) first.make("set", row, rows);
    EXPECT_FALSE(first.complete());
    EXPECT_EQ(first.missing(), 2);
    for (const std::int64_t row : {0, 1, 2, 3}) second.make("set", row, rows);
    EXPECT_TRUE(first.complete());
    EXPECT_TRUE(second.complete());
    second.remove();
    EXPECT_TRUE(first.removed_by_another());
}

TEST(EvaluationParts, of_another_evaluation_are_refused_and_a_result_is_known_by_its_protocols) {
    const core::TestFolder folder;
    EvaluationParts parts(folder / "parts", folder / "evaluation.json", {0, 2});
    parts.begin({{"model", {{"count", 10}}}});
    parts.begin({{"model", {{"count", 10}}}});
    EXPECT_NE(
        error_of([&] { parts.begin({{"model", {{"count", 11}}}}); }).find("another evaluation"),
        std::string::npos);
    const nlohmann::json result{{"models", {{"model", {{"protocol", {{"count", 10}}}}}}}};
    EXPECT_TRUE(parts.finished({{"model", {{"count", 10}}}}).is_null());
    core::write_json(folder / "evaluation.json", result);
    EXPECT_EQ(parts.finished({{"model", {{"count", 10}}}}), result);
    EXPECT_TRUE(parts.finished({{"model", {{"count", 11}}}}).is_null());
    EXPECT_TRUE(parts.finished({{"other", {{"count", 10}}}}).is_null());
}

TEST(Evaluator, warns_about_frechet_distances_of_few_images_per_class) {
    const Evaluator evaluator(halves(24, 1), &extractor(),
                              small_protocol(20));  // 10 and 12 of each class, and 16 features
    testing::internal::CaptureStderr();
    evaluator.evaluate({real_samples(halves(300, 5)), ""});
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find("feature_distance per class is taken from as few as"), std::string::npos)
        << log;
    EXPECT_NE(log.find("compare kernel_feature_distance per class"), std::string::npos) << log;
    EXPECT_EQ(log.find("per class"),
              log.rfind("feature_distance per class is") + std::string("feature_distance ").size())
        << "once, for three seeds";
}

TEST(SampleCounts, that_are_too_few_for_a_measure_are_named) {
    const auto lines = [](const FeatureSpace& space, std::int64_t count, std::int64_t reference) {
        Protocol protocol;
        protocol.count = count;
        return too_few_for(space, protocol, reference);
    };
    const Thumbnails pixels(3);  // 192 features
    EXPECT_TRUE(lines(pixels, 1000, 1000).empty());
    EXPECT_TRUE(lines(pixels, 192, 0).empty()) << "nothing but means and covariances is compared";
    const auto few = lines(pixels, 191, 5000);
    ASSERT_EQ(few.size(), 3U);
    core::expect_contains(few[0],
                          "pixel_distance is taken from 191 samples with 192 features each");
    core::expect_contains(few[0], "kernel_pixel_distance, which has no such bias");
    core::expect_contains(few[1],
                          "kernel_pixel_distance is taken from subsets of 191 instead of "
                          "1000, since there are no more samples");
    core::expect_contains(few[2], "monge_pixel_distance is taken from 191 samples");
    const auto few_real = lines(pixels, 5000, 999);
    ASSERT_EQ(few_real.size(), 2U);
    core::expect_contains(few_real[0],
                          "subsets of 999 instead of 1000, since there are no more real");
    EXPECT_EQ(lines(pixels, 191, 0).size(), 1U);

    /// Inception's sizes, of which the lines are.
    class Sizes : public Thumbnails {
    public:
        Sizes() : Thumbnails(1) {}
        std::int64_t width() const override { return Inception::features_width; }
        Kind kind() const override { return Kind::inception; }
    };
    EXPECT_TRUE(lines(Sizes(), 10'000, 10'000).empty());
    const auto score = lines(Sizes(), 5000, 50'000);
    ASSERT_EQ(score.size(), 1U);
    core::expect_contains(score[0], "inception_score is taken from 10 parts of 500 samples");
    EXPECT_EQ(lines(Sizes(), 500, 50'000).size(), 4U);
    core::expect_contains(lines(Sizes(), 2047, 0)[0], "fid is taken from 2047 samples");
}

TEST(SampleCounts, of_points_are_enough_for_every_mode) {
    Protocol protocol;
    protocol.count = 499;
    core::expect_contains(too_few_for_modes(protocol, 25).at(0),
                          "worst_mode and modes_reached are taken from 499 samples of 25 modes");
    protocol.count = 500;
    EXPECT_TRUE(too_few_for_modes(protocol, 25).empty());
}

TEST(Evaluator, warns_of_counts_that_are_too_few) {
    testing::internal::CaptureStderr();
    const Evaluator few(halves(24, 1), &extractor(), small_protocol(15));  // and 16 features
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_NE(log.find("feature_distance is taken from 15 samples"), std::string::npos) << log;
}

TEST(Evaluator, on_pixels_needs_no_classifier) {
    const Thumbnails pixels(1);
    const auto reference = halves(400, 1);
    const nlohmann::json real = Evaluator(reference, &pixels, small_protocol(100))
                                    .evaluate({real_samples(halves(300, 5)), ""});
    const auto dark = [](std::int64_t count, std::uint64_t) {
        return Samples{at::full({count, 1, 8, 8}, -0.9F), {}};
    };
    const nlohmann::json fake =
        Evaluator(reference, &pixels, small_protocol(100)).evaluate({dark, ""});
    EXPECT_GT(mean_of(fake, "pixel_distance"), 5 * mean_of(real, "pixel_distance"));
    EXPECT_GT(mean_of(fake, "kernel_pixel_distance"), mean_of(real, "kernel_pixel_distance"));
    EXPECT_FALSE(real.at("metrics").contains("class_agreement"));
    EXPECT_TRUE(real.at("protocol").contains("pixels"));
    EXPECT_TRUE(
        at::allclose(pixels.features(at::ones({2, 1, 28, 28})).features, at::ones({2, 64})));
    EXPECT_NE(error_of([&] { pixels.features(at::ones({2, 3, 8, 8})); }).find("1 channels"),
              std::string::npos);
}

TEST(Evaluator, in_several_spaces_gives_each_its_distances_and_the_main_one_the_rest) {
    const core::TestFolder folder;
    const auto reference = halves(400, 1), real = halves(300, 5);
    const Thumbnails pixels(1);
    const EvaluationTarget target{real_samples(real), "abc", {{"name", "real"}}};
    const Protocol protocol = small_protocol(100);
    const nlohmann::json both = Evaluator(reference, FeatureSpaces{&extractor(), &pixels}, protocol)
                                    .evaluate(target),
                         main = Evaluator(reference, &extractor(), protocol).evaluate(target),
                         further = Evaluator(reference, &pixels, protocol).evaluate(target);
    for (const auto& [name, value] : main.at("metrics").items())
        EXPECT_EQ(both.at("metrics").at(name), value) << name;
    for (const char* name : {"pixel_distance", "kernel_pixel_distance", "monge_pixel_distance"}) {
        EXPECT_EQ(both.at("metrics").at(name), further.at("metrics").at(name)) << name;
        EXPECT_EQ(both.at("classes").at(1).at(name), further.at("classes").at(1).at(name)) << name;
    }
    EXPECT_EQ(both.at("protocol").at("classifier"), extractor().hash());
    EXPECT_EQ(both.at("protocol").at("pixels"), pixels.hash());
    EXPECT_EQ(both.at("protocol").at("further_spaces").at(0).at("features"), 64);
    EXPECT_FALSE(main.at("protocol").contains("further_spaces"));
    // And in parts, which hold the features of all.
    const auto parts = std::make_shared<EvaluationParts>(
        folder / "parts", folder / "evaluation.json", core::Shard{0, 1});
    Evaluator shared(reference, FeatureSpaces{&extractor(), &pixels}, protocol, parts);
    parts->begin({{"real", shared.protocol_of(target)}});
    shared.share_reference();
    shared.share(target);
    shared.read_reference();
    EXPECT_EQ(shared.evaluate(target), both);
}

/// `count` images of four classes, of which 0 and 1, and 2 and 3 look the same.
std::shared_ptr<const data::Dataset> quarters(std::int64_t count, std::uint64_t seed) {
    const auto two = halves(count, seed);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < count; ++i) labels.push_back(2 * (i % 2) + (i / 2) % 2);
    const Tensor images =
        data::to_user_space(two->spec(), two->samples(data::consecutive(0, count)));
    data::SampleSpec spec;
    spec.shape = {1, 8, 8};
    return std::make_shared<data::MemoryDataset>(images.permute({0, 3, 1, 2}).contiguous(), labels,
                                                 4, spec, 0);
}

TEST(Evaluator, with_a_partition_has_a_row_per_cell) {
    const Thumbnails pixels(1);
    Protocol protocol = small_protocol(200);
    protocol.partition = {.students = 2, .method = "file", .owner = {0, 0, 1, 1}};
    const auto reference = quarters(400, 1);
    // Of class 2 and 3, pictures of 0 and 1: the second cell's are wrong, the first one's right.
    const auto draw = [](std::int64_t count, std::uint64_t seed) {
        Samples samples = real_samples(quarters(800, 7))(count, seed);
        const Samples left = real_samples(quarters(800, 8))(count, seed);
        std::vector<std::int64_t> of_left;
        for (std::int64_t i = 0; i < count; ++i) {
            if (left.labels[static_cast<std::size_t>(i)] < 2) of_left.push_back(i);
        }
        for (std::int64_t i = 0; i < count; ++i) {
            if (samples.labels[static_cast<std::size_t>(i)] >= 2)
                samples.model_space[i].copy_(
                    left.model_space[of_left[static_cast<std::size_t>(i) % of_left.size()]]);
        }
        return samples;
    };
    const nlohmann::json result = Evaluator(reference, &pixels, protocol).evaluate({draw, "abc"});
    EXPECT_EQ(result.at("partition"), protocol.partition.hash());
    const nlohmann::json& cells = result.at("cells");
    ASSERT_EQ(cells.size(), 2U);
    EXPECT_EQ(cells.at(1).at("cell"), 1);
    EXPECT_EQ(cells.at(1).at("classes"), (std::vector<int>{2, 3}));
    EXPECT_EQ(cells.at(0).at("reference_count").at("mean"), 200);
    double count = 0;
    for (const nlohmann::json& cell : cells) count += cell.at("count").at("mean").get<double>();
    EXPECT_EQ(count, 200);
    for (const char* name : {"pixel_distance", "kernel_pixel_distance", "monge_pixel_distance"}) {
        const auto of_cell = [&](std::size_t k) {
            return cells.at(k).at(name).at("mean").get<double>();
        };
        EXPECT_GT(of_cell(1), 3 * std::abs(of_cell(0))) << name;
    }
    // A cell's distance is that of its pictures, not a mean over its classes.
    Protocol one = protocol;
    one.partition.owner = {0, 0, 0, 1};
    one.partition.students = 2;
    EXPECT_NE(Evaluator(reference, &pixels, one).evaluate({draw, "abc"}).at("cells").at(0),
              cells.at(0));
    protocol.partition = {};
    EXPECT_FALSE(Evaluator(reference, &pixels, protocol).evaluate({draw, "abc"}).contains("cells"));
}

TEST(Evaluator, rejects_too_few_images_before_computing_features) {
    EXPECT_NE(error_of([] {
                  Evaluator(halves(5, 1), &extractor(), small_protocol(20));
              }).find("5 real images are too few for 5 neighbours"),
              std::string::npos);
    EXPECT_NE(error_of([] {
                  Evaluator(halves(50, 1), &extractor(), small_protocol(3));
              }).find("3 samples are too few for 3 neighbours"),
              std::string::npos);
}

TEST(Evaluator, rejects_other_samples_than_requested) {
    const Evaluator evaluator(halves(100, 1), &extractor(), small_protocol(20));
    const auto draws = [](Samples samples) {
        return [samples](std::int64_t, std::uint64_t) { return samples; };
    };
    EXPECT_NE(error_of([&] {
                  evaluator.evaluate({draws({at::zeros({20, 1, 9, 9}), {}}), ""});
              }).find("[20,1,9,9]"),
              std::string::npos);
    EXPECT_NE(error_of([&] {
                  evaluator.evaluate({draws({at::zeros({20, 1, 8, 8}), {1, 2}}), ""});
              }).find("2 labels"),
              std::string::npos);
    const Samples unknown{at::zeros({20, 1, 8, 8}), std::vector<std::int64_t>(20, 2)};
    EXPECT_NE(error_of([&] { evaluator.evaluate({draws(unknown), ""}); }).find("0..1"),
              std::string::npos);
    EXPECT_NE(
        error_of([] { Evaluator(halves(100, 1), nullptr, small_protocol(20)); }).find("classifier"),
        std::string::npos);
}

TEST(Evaluator, of_points_reports_modes_strays_and_classes) {
    Protocol protocol = small_protocol(600);
    const Evaluator by_class(blobs(2000, 1), nullptr, protocol);
    protocol.centres = {{-1, 0}, {1, 0}};
    protocol.std_dev = 0.1;
    const Evaluator by_centre(blobs(2000, 1), nullptr, protocol);
    const EvaluationTarget real{real_samples(blobs(1500, 2)), "abc"};
    const EvaluationTarget collapsed{[&](std::int64_t count, std::uint64_t seed) {
                                         Samples samples = real.draw(count, seed);
                                         samples.model_space =
                                             at::zeros_like(samples.model_space) +
                                             at::tensor({-0.75, 0.0});  // all of them at (-1,0)
                                         return samples;
                                     },
                                     "abc"};
    for (const Evaluator* evaluator : {&by_class, &by_centre}) {
        const nlohmann::json good = evaluator->evaluate(real), bad = evaluator->evaluate(collapsed);
        EXPECT_EQ(mean_of(good, "modes_reached"), 1);
        EXPECT_EQ(mean_of(bad, "modes_reached"), 0.5);
        EXPECT_EQ(mean_of(bad, "worst_mode"), 0);
        EXPECT_LT(mean_of(good, "strays"), 0.003);
        EXPECT_GT(mean_of(good, "class_agreement"), 0.995);
        EXPECT_NEAR(mean_of(bad, "class_agreement"), 0.5, 0.05);
        EXPECT_GT(mean_of(bad, "sliced_wasserstein"), 10 * mean_of(good, "sliced_wasserstein"));
        EXPECT_GT(mean_of(bad, "mmd_squared"), 0.1);
        EXPECT_GT(bad.at("classes").at(1).at("sliced_wasserstein").at("mean").get<double>(), 1);
        EXPECT_EQ(good.at("protocol").at("quantisation"), "none");
    }
}

TEST(Neighbours, finds_copies_of_training_samples) {
    const auto training = halves(6000, 1), held_out = halves(200, 2);
    const std::vector<std::int64_t> some{5, 17, 4321, 5999};
    const Nearest found = nearest_in(training->samples(some), *training, 2);
    EXPECT_EQ(found.indices.select(1, 0)[2].item<std::int64_t>(), 4321);
    EXPECT_NEAR(found.distances.select(1, 0).max().item<double>(), 0, 1e-6);
    EXPECT_GT(found.distances.select(1, 1).min().item<double>(), 0.1);

    const Tensor others = real_samples(held_out)(200, 0).model_space,
                 fresh = real_samples(halves(200, 3))(200, 0).model_space;
    const CopyReport honest = copying(fresh, others, *training),
                     copied =
                         copying(real_samples(training)(200, 0).model_space, others, *training);
    EXPECT_NEAR(honest.generated_median / honest.held_out_median, 1, 0.05);
    EXPECT_LT(honest.suspicious, 0.05);
    EXPECT_EQ(copied.suspicious, 1);
}

TEST(Latency, times_the_runs_after_the_warm_up) {
    int calls = 0;
    const Latency latency = median_seconds([&] { ++calls; }, 3, 4);
    EXPECT_EQ(calls, 7);
    EXPECT_EQ(latency.runs, 4);
    EXPECT_LE(latency.least, latency.median);
    EXPECT_LE(latency.median, latency.most);
    EXPECT_NE(error_of([] { median_seconds([] {}, 0, 0); }).find("at least 1"), std::string::npos);
}

}  // namespace
}  // namespace atelier::metrics
