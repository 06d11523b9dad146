#include "atelier/backends/torch/parameters.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "atelier/backends/torch/error_message.h"
#include "backends/tensors.h"
#include "core/test_folder.h"

namespace atelier::backends {

TEST(ErrorMessage, is_the_informative_line) {
    EXPECT_EQ(error_message(std::runtime_error("one\ntwo")), "one");
    EXPECT_EQ(error_message(std::runtime_error(
                  "Exception from src/core.cpp:84:\nCheck failed\nthe tensor is f16\n\n")),
              "OpenVINO error: the tensor is f16");
}

namespace {

class ParametersFile : public testing::Test {
protected:
    std::filesystem::path path(const std::string& name = "model.safetensors") const {
        return folder_ / name;
    }

    std::string bytes(const std::string& name) const {
        std::ifstream file(path(name), std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }

private:
    core::TestFolder folder_;
};

Parameters two_layers() {
    Parameters parameters;
    parameters.set("b.weight", normal({3, 2}, "b"));
    parameters.set("a.weight", normal({2}, "a"));
    return parameters;
}

bool equal(const Parameters& a, const Parameters& b) {
    if (a.tensors().size() != b.tensors().size()) return false;
    for (const auto& [name, tensor] : a.tensors()) {
        if (!b.contains(name) || b.at(name).scalar_type() != tensor.scalar_type() ||
            !b.at(name).equal(tensor))
            return false;
    }
    return true;
}

const std::vector<graph::ParameterSpec> layer_specs{{"a.weight", {2}, {}, 2},
                                                    {"b.weight", {3, 2}, {}, 2}};

}  // namespace

TEST(Parameters, a_missing_tensor_is_named) {
    expect_contains(error_of([] { two_layers().at("c.weight"); }), "\"c.weight\"");
}

TEST(Parameters, list_and_count_follow_the_order_of_names) {
    const Parameters parameters = two_layers();
    ASSERT_EQ(parameters.list().size(), 2U);
    EXPECT_TRUE(parameters.list()[0].is_same(parameters.at("a.weight")));
    EXPECT_EQ(parameters.count(), 8);
    EXPECT_TRUE(Parameters().empty());
}

TEST(Parameters, a_clone_shares_neither_values_nor_gradients) {
    const Parameters parameters = two_layers();
    parameters.require_gradients(true);
    const Parameters copy = parameters.clone();
    EXPECT_TRUE(equal(copy, parameters));
    EXPECT_FALSE(copy.at("a.weight").requires_grad());
    copy.at("a.weight").fill_(9);
    EXPECT_FALSE(equal(copy, parameters));
}

TEST(Parameters, copy_from_overwrites_in_place_also_where_gradients_are_required) {
    const Parameters source = two_layers();
    Parameters target = source.clone();
    const Tensor original = target.at("a.weight");
    original.zero_();
    target.require_gradients(true);
    target.copy_from(source);
    EXPECT_TRUE(original.equal(source.at("a.weight")));
    EXPECT_TRUE(original.requires_grad());
    EXPECT_FALSE(original.is_same(source.at("a.weight")));
}

TEST(Parameters, copy_from_names_a_tensor_that_the_other_lacks) {
    Parameters target = two_layers(), fewer;
    fewer.set("a.weight", normal({2}, "a"));
    expect_contains(error_of([&] { target.copy_from(fewer); }), "\"b.weight\"");
}

TEST(Parameters, merge_puts_a_prefix_before_names_and_subset_takes_it_away) {
    Parameters all;
    all.merge(two_layers(), "ema/");
    all.merge(two_layers(), "emax/");
    all.set("em", normal({1}, "em"));
    EXPECT_EQ(all.tensors().size(), 5U);
    EXPECT_TRUE(all.contains("ema/a.weight"));
    EXPECT_TRUE(equal(all.subset("ema/"), two_layers()));
    EXPECT_TRUE(all.subset("other/").empty());
    EXPECT_EQ(all.subset("").tensors().size(), 5U);
}

TEST(Parameters, to_changes_floating_types_alone) {
    Parameters parameters = two_layers();
    parameters.set("steps", at::tensor({std::int64_t{1} << 40}));
    const Parameters half = parameters.to(at::kCPU, at::kBFloat16);
    EXPECT_EQ(half.at("a.weight").scalar_type(), at::kBFloat16);
    EXPECT_EQ(half.at("steps").item<std::int64_t>(), std::int64_t{1} << 40);
}

TEST(Parameters, all_finite_sees_a_single_non_finite_value) {
    EXPECT_TRUE(two_layers().all_finite());
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
        const Parameters parameters = two_layers();
        parameters.at("b.weight")[2][1] = bad;
        EXPECT_FALSE(parameters.all_finite());
    }
}

TEST(CheckAgainst, accepts_exactly_what_the_network_reads) {
    check_against(two_layers(), layer_specs, "here");
}

TEST(CheckAgainst, names_the_file_and_the_first_tensor_that_does_not_fit) {
    Parameters wrong_shape = two_layers();
    wrong_shape.set("b.weight", normal({3, 4}, "b"));
    std::string message =
        error_of([&] { check_against(wrong_shape, layer_specs, "student-2/model.safetensors"); });
    for (const char* part : {"student-2/model.safetensors", "\"b.weight\"", "[3,4]", "[3,2]"})
        expect_contains(message, part);

    Parameters missing;
    missing.set("a.weight", normal({2}, "a"));
    message = error_of([&] { check_against(missing, layer_specs, "here"); });
    for (const char* part : {"here: ", "\"b.weight\"", "missing"}) expect_contains(message, part);

    Parameters superfluous = two_layers();
    superfluous.set("c", normal({2}, "c"));
    message = error_of([&] { check_against(superfluous, layer_specs, "here"); });
    for (const char* part : {"here: ", "\"c\"", "not part"}) expect_contains(message, part);
}

TEST(Initialise, a_tensor_depends_on_the_seed_and_its_own_name_alone) {
    const graph::ParameterSpec alone{"b.weight", {3, 2}, {}, 2}, renamed{"c.weight", {3, 2}, {}, 2};
    const Tensor first = initialise(layer_specs, 5).at("b.weight");
    EXPECT_TRUE(initialise({{alone}}, 5).at("b.weight").equal(first));
    EXPECT_FALSE(initialise({{alone}}, 6).at("b.weight").equal(first));
    EXPECT_FALSE(initialise({{renamed}}, 5).at("c.weight").equal(first));
}

TEST(Initialise, draws_what_the_init_describes) {
    const std::vector<graph::ParameterSpec> specs{
        {"uniform", {200, 100}, {graph::Init::Kind::uniform, 1.0}, 25},
        {"normal", {200, 100}, {graph::Init::Kind::normal, 3.0}, 9},
        {"zeros", {7}, graph::zeros, 25},
        {"norm", {7}, graph::zeros, 25, 1.0},
        {"shifted", {200, 100}, {graph::Init::Kind::uniform, 1.0}, 25, 1.0}};
    const Parameters drawn = initialise(specs, 1);
    const Tensor& uniform = drawn.at("uniform");
    EXPECT_LE(uniform.abs().max().item<double>(), 0.2);
    EXPECT_GT(uniform.abs().max().item<double>(), 0.199);
    EXPECT_NEAR(uniform.square().mean().sqrt().item<double>(), 0.2 / std::sqrt(3.0), 2e-3);
    EXPECT_NEAR(uniform.mean().item<double>(), 0, 3e-3);
    EXPECT_NEAR(drawn.at("normal").square().mean().sqrt().item<double>(), 1.0, 2e-2);
    EXPECT_GT(drawn.at("normal").abs().max().item<double>(), 3.0);
    EXPECT_TRUE(drawn.at("zeros").equal(at::zeros({7})));
    EXPECT_TRUE(drawn.at("norm").equal(at::ones({7})));
    EXPECT_NEAR(drawn.at("shifted").mean().item<double>(), 1, 3e-3);
}

TEST_F(ParametersFile, what_is_written_is_read_and_written_again_to_the_same_bytes) {
    Parameters parameters = two_layers();
    parameters.set("step", at::tensor({std::int64_t{1} << 40}));
    parameters.set("empty", at::empty({0, 3}));
    parameters.set("transposed", normal({2, 5}, "transposed").t());
    write_parameters(path("one"), parameters, {{"partition", "abc"}});
    const Parameters read = read_parameters(path("one"));
    EXPECT_TRUE(equal(read, parameters));
    write_parameters(path("two"), read, {{"partition", "abc"}});
    EXPECT_EQ(bytes("one"), bytes("two"));
    EXPECT_EQ(core::SafetensorsFile(path("two")).metadata().at("partition"), "abc");
}

TEST_F(ParametersFile, half_precision_is_read_as_float32_unless_types_are_kept) {
    Parameters parameters;
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kDouble}) {
        parameters.set(at::toString(type), at::tensor({1.5, -2.25}).to(type));
    }
    parameters.set("bytes", at::tensor({1, 255}).to(at::kByte));
    write_parameters(path(), parameters);
    EXPECT_TRUE(equal(read_parameters(path(), /*keep_types=*/true), parameters));
    const Parameters read = read_parameters(path());
    for (const char* name : {"Half", "BFloat16", "Double"})
        EXPECT_TRUE(read.at(name).equal(at::tensor({1.5F, -2.25F}))) << name;
    EXPECT_EQ(read.at("bytes").scalar_type(), at::kByte);
}

TEST_F(ParametersFile, what_was_read_outlives_the_file) {
    write_parameters(path(), two_layers());
    const Parameters read = read_parameters(path());
    write_parameters(path(), Parameters{});
    EXPECT_TRUE(equal(read, two_layers()));
}

TEST(HashOf, depends_on_names_shapes_types_and_values_and_on_nothing_else) {
    const std::string hash = hash_of(two_layers());
    EXPECT_EQ(hash.size(), 64U);
    const Parameters elsewhere = two_layers().clone();
    elsewhere.require_gradients(true);
    EXPECT_EQ(hash_of(elsewhere), hash);
    Parameters transposed = two_layers();
    transposed.set("b.weight", transposed.at("b.weight").t().contiguous().t());
    EXPECT_EQ(hash_of(transposed), hash);

    Parameters renamed = two_layers().subset("b.");
    renamed.set("a.weight", two_layers().at("a.weight"));
    EXPECT_NE(hash_of(renamed), hash);
    Parameters reshaped = two_layers();
    reshaped.set("b.weight", reshaped.at("b.weight").reshape({2, 3}));
    EXPECT_NE(hash_of(reshaped), hash);
    const Parameters nudged = two_layers().clone();
    nudged.at("a.weight")[1] += 1e-6;
    EXPECT_NE(hash_of(nudged), hash);
    EXPECT_NE(hash_of(two_layers().to(at::kCPU, at::kDouble)), hash);
    EXPECT_EQ(hash_of(two_layers().to(at::kCPU, at::kDouble).to(at::kCPU)), hash);
}

TEST_F(ParametersFile, mapped_tensors_have_the_same_values_in_float32) {
    Parameters mixed;
    mixed.set("half", normal({3, 2}, "half").to(at::kHalf));
    mixed.set("single", normal({5}, "single"));
    write_parameters(path(), mixed);
    const Parameters mapped = map_parameters(std::make_shared<core::SafetensorsFile>(path()));
    EXPECT_TRUE(equal(mapped, mixed.to(at::kCPU)));
}

}  // namespace atelier::backends
