#include "atelier/data/points.h"

#include <cmath>
#include <limits>
#include <set>

#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

std::vector<float> cloud(std::size_t count, float x, float y, float spread,
                         std::uint64_t seed = 0) {
    core::RandomStream stream(seed, "cloud");
    std::vector<float> positions;
    for (std::size_t i = 0; i < count; ++i) {
        positions.push_back(x + spread * static_cast<float>(stream.normal()));
        positions.push_back(y + 3 * spread * static_cast<float>(stream.normal()));
    }
    return positions;
}

std::vector<std::int64_t> alternating(std::size_t count, std::int64_t classes) {
    std::vector<std::int64_t> labels;
    for (std::size_t i = 0; i < count; ++i)
        labels.push_back(static_cast<std::int64_t>(i) % classes);
    return labels;
}

std::string error_of(const std::filesystem::path& path) {
    return message_of([&] { open_dataset({path}); });
}

TEST(points, model_space_has_mean_zero_and_standard_deviation_one_half) {
    const TestFolder folder;
    for (const float spread : {1e-3F, 1.0F, 1e6F}) {
        write_points(folder / "p.safetensors", cloud(5000, 7 * spread, -20 * spread, spread),
                     alternating(5000, 3));
        const auto data = open_dataset({folder / "p.safetensors"});
        const Tensor samples = data->samples(all_of(*data)).to(at::kDouble);
        EXPECT_NEAR(samples.mean(0).abs().max().item<double>(), 0, 1e-4);
        EXPECT_NEAR(samples.square().mean().sqrt().item<double>(), 0.5, 1e-4);
        EXPECT_TRUE(data->spec().kind == data::SampleSpec::Kind::points);
        EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{2}));
        EXPECT_EQ(data->classes(), 3);
    }
}

TEST(points, user_space_gives_back_the_file) {
    const TestFolder folder;
    const auto positions = cloud(100, 5, 1, 2);
    write_points(folder / "p.safetensors", positions);
    const auto data = open_dataset({folder / "p.safetensors"});
    EXPECT_EQ(data->classes(), 0);
    const Tensor user = data::to_user_space(data->spec(), data->samples(all_of(*data)));
    for (std::size_t i = 0; i < positions.size(); ++i)
        EXPECT_NEAR(user.const_data_ptr<float>()[i], positions[i], 1e-5);
}

TEST(points, float64_is_the_same_data_as_float32) {
    const TestFolder folder;
    const auto positions = cloud(50, 0, 0, 1);
    const std::vector<double> wide(positions.begin(), positions.end());
    write_points(folder / "f32.safetensors", positions);
    core::write_safetensors(
        folder / "f64.safetensors",
        {{"points", core::DType::F64, {50, 2}, std::as_bytes(std::span(wide))}});
    EXPECT_EQ(open_dataset({folder / "f32.safetensors"})->hash(),
              open_dataset({folder / "f64.safetensors"})->hash());
}

TEST(points, the_hash_tells_positions_and_labels_apart) {
    const TestFolder folder;
    std::set<std::string> hashes;
    const auto hash = [&](const std::vector<float>& positions,
                          const std::vector<std::int64_t>& labels) {
        write_points(folder / "p.safetensors", positions, labels);
        return open_dataset({folder / "p.safetensors"})->hash();
    };
    hashes.insert(hash(cloud(6, 0, 0, 1), {}));
    hashes.insert(hash(cloud(6, 0, 0, 1, 1), {}));
    hashes.insert(hash(cloud(6, 0, 0, 1), {0, 0, 0, 1, 1, 1}));
    hashes.insert(hash(cloud(6, 0, 0, 1), {0, 0, 1, 0, 1, 1}));
    EXPECT_EQ(hashes.size(), 4U);
    EXPECT_TRUE(hashes.contains(hash(cloud(6, 0, 0, 1), {})));
}

TEST(points, non_finite_coordinates_are_errors_naming_the_row) {
    const TestFolder folder;
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
        auto positions = cloud(10, 0, 0, 1);
        positions[15] = bad;
        write_points(folder / "p.safetensors", positions);
        EXPECT_TRUE(
            holds(error_of(folder / "p.safetensors"), "p.safetensors: row 7 of \"points\""));
    }
    const std::vector<double> wide{0, 0, 1, 1e300};
    core::write_safetensors(folder / "f64.safetensors",
                            {{"points", core::DType::F64, {2, 2}, std::as_bytes(std::span(wide))}});
    EXPECT_TRUE(holds(error_of(folder / "f64.safetensors"), "row 1 of \"points\""));
}

TEST(points, labels_out_of_range_and_missing_classes_are_errors) {
    const TestFolder folder;
    const auto path = folder / "p.safetensors";
    const auto error = [&](const std::vector<std::int64_t>& labels) {
        write_points(path, cloud(4, 0, 0, 1), labels);
        return error_of(path);
    };
    EXPECT_TRUE(holds(error({0, 1, -3, 0}), "the label of row 2 is -3"));
    EXPECT_TRUE(holds(error({0, 3, 1, 0}), "class 2 has no sample"));
    EXPECT_TRUE(holds(error({1, 1, 1, 1}), "class 0 has no sample"));
    EXPECT_TRUE(
        holds(error({0, std::numeric_limits<std::int64_t>::max(), 1, 2}), "class 3 has no sample"));
    EXPECT_TRUE(holds(error({0, 1, 0}), "\"labels\" is I64 [3]"));
}

TEST(points, tensors_of_another_shape_or_type_are_errors) {
    const TestFolder folder;
    const auto path = folder / "p.safetensors";
    const std::vector<float> six(6);
    const auto error = [&](const std::string& name, core::DType type, const core::Shape& shape) {
        core::write_safetensors(path, {{name, type, shape, std::as_bytes(std::span(six))}});
        return error_of(path);
    };
    EXPECT_TRUE(holds(error("points", core::DType::F32, {2, 3}), "\"points\" is F32 [2,3]"));
    EXPECT_TRUE(holds(error("points", core::DType::F32, {6}), "\"points\" is F32 [6]"));
    EXPECT_TRUE(holds(error("points", core::DType::I32, {3, 2}), "\"points\" is I32"));
    EXPECT_TRUE(holds(error("places", core::DType::F32, {3, 2}), "\"points\""));
    core::write_safetensors(path, {{"points", core::DType::F32, {0, 2}, {}}});
    EXPECT_TRUE(holds(error_of(path), "\"points\" is F32 [0,2]"));
    write_bytes(path, random_bytes(100));
    EXPECT_TRUE(holds(error_of(path), "p.safetensors"));
}

TEST(points, equal_points_are_an_error) {
    const TestFolder folder;
    write_points(folder / "p.safetensors", std::vector<float>(20, 3));
    EXPECT_TRUE(holds(error_of(folder / "p.safetensors"), "all points are equal"));
}

TEST(points, a_spread_that_no_config_could_record_is_an_error) {
    const TestFolder folder;
    for (const float far : {1e-36F, 1e36F}) {
        write_points(folder / "p.safetensors", {0, 0, far, far});
        EXPECT_TRUE(holds(error_of(folder / "p.safetensors"), "the points' standard deviation is"));
    }
}

TEST(points, the_test_split_is_the_sibling_in_the_model_space_of_train) {
    const TestFolder folder;
    write_points(folder / "p.safetensors", cloud(100, 0, 0, 1), alternating(100, 4));
    const auto train = open_dataset({folder / "p.safetensors"});
    EXPECT_EQ(open_dataset({folder / "p.safetensors", "test"})->hash(), train->hash());
    write_points(folder / "p-test.safetensors", cloud(30, 9, 9, 1, 1), alternating(30, 3));
    const auto test = open_dataset({folder / "p.safetensors", "test"});
    EXPECT_EQ(test->size(), 30);
    EXPECT_EQ(test->classes(), 4);
    EXPECT_TRUE(test->spec() == train->spec());
    write_points(folder / "p-test.safetensors", cloud(30, 9, 9, 1, 1), alternating(30, 5));
    EXPECT_TRUE(holds(message_of([&] { open_dataset({folder / "p.safetensors", "test"}); }),
                      "row 4 is 4; there are 4 classes"));
    write_points(folder / "p-test.safetensors", cloud(30, 9, 9, 1, 1));
    EXPECT_THROW(open_dataset({folder / "p.safetensors", "test"}), core::Error);
}

TEST(points, a_limit_changes_neither_model_space_nor_classes) {
    const TestFolder folder;
    write_points(folder / "p.safetensors", cloud(100, 0, 0, 1), alternating(100, 4));
    const auto all = open_dataset({folder / "p.safetensors"}),
               some = open_dataset({folder / "p.safetensors", "train", 2});
    EXPECT_EQ(some->size(), 2);
    EXPECT_TRUE(some->spec() == all->spec());
    EXPECT_EQ(prior_of(*some).weights, (std::vector<double>{1, 1, 0, 0}));
}

TEST(points, classes_select_their_samples) {
    const TestFolder folder;
    write_points(folder / "p.safetensors", cloud(6, 0, 0, 1), {0, 1, 2, 0, 2, 2});
    const auto data = open_dataset({folder / "p.safetensors"});
    EXPECT_EQ(indices_of(*data, std::vector<std::int64_t>{2, 0}),
              (std::vector<std::int64_t>{0, 2, 3, 4, 5}));
    EXPECT_TRUE(indices_of(*data, {}).empty());
    EXPECT_THROW(indices_of(*data, std::vector<std::int64_t>{3}), core::Error);
    EXPECT_EQ(prior_of(*data).weights, (std::vector<double>{2, 1, 3}));
}

TEST(points, requests_that_cannot_be_met_say_why) {
    EXPECT_TRUE(holds(message_of([] { open_dataset({"/nowhere/at/all"}); }),
                      "/nowhere/at/all: there is no such file"));
    EXPECT_THROW(open_dataset({"toy:ring", "validation"}), core::UsageError);
    EXPECT_THROW(open_dataset({"toy:ring", "train", -1}), core::UsageError);
}

}  // namespace
}  // namespace atelier::data
