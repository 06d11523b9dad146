#include "atelier/metrics/dinov2.h"

#include <gtest/gtest.h>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/metrics/evaluate.h"
#include "backends/tensors.h"
#include "core/test_folder.h"
#include "diffusion/golden_weights.h"
#include "metrics/evaluation_fixtures.h"

namespace atelier::metrics {
namespace {

using core::error_of;

/// What files call a tensor that transformers 5 has by another name in memory.
std::string name_in_files(std::string name) {
    static const std::vector<std::pair<std::string, std::string>> parts{
        {".attention.q_proj.", ".attention.attention.query."},
        {".attention.k_proj.", ".attention.attention.key."},
        {".attention.v_proj.", ".attention.attention.value."},
        {".attention.o_proj.", ".attention.output.dense."},
    };
    for (const auto& [from, to] : parts) {
        if (const auto at = name.find(from); at != std::string::npos)
            name.replace(at, from.size(), to);
    }
    return name;
}

/// A small Dinov2Model's weights, as in scripts/make_dinov2_golden.py.
models::NamedTensors golden_dinov2_state() {
    models::NamedTensors named;
    const nlohmann::json shapes =
        core::read_json(ATELIER_SOURCE_DIR "/tests/golden/dinov2_shapes.json");
    for (const auto& [name, shape] : shapes.items()) {
        named[name_in_files(name)] = [name = name, shape = shape.get<std::vector<std::int64_t>>()] {
            return diffusion::golden_weights(name, shape);
        };
    }
    return named;
}

const Dinov2& golden_dinov2() {
    static const Dinov2 network(golden_dinov2_state(), "golden");
    return network;
}

const backends::Parameters& dinov2_answers() {
    static const backends::Parameters answers = backends::read_parameters(
        ATELIER_SOURCE_DIR "/tests/golden/dinov2.safetensors", /*keep_types=*/true);
    return answers;
}

TEST(Dinov2, features_of_images_of_any_size_match_transformers) {
    for (const std::string name : {"small", "large"}) {
        const Tensor levels = dinov2_answers().at(name + " images").to(at::kFloat),
                     found = golden_dinov2().features(levels / 127.5 - 1).features,
                     expected = dinov2_answers().at(name + " features");
        ASSERT_EQ(found.sizes(), expected.sizes());
        for (std::int64_t i = 0; i < found.size(0); ++i)
            EXPECT_LT(backends::relative_distance(found[i], expected[i]), 1e-5) << name << i;
    }
}

TEST(Dinov2, positions_are_interpolated_like_transformers) {
    for (const std::string name : {"trained", "wide"})
        EXPECT_LT(
            backends::relative_distance(golden_dinov2().embed(dinov2_answers().at(name + " seen")),
                                        dinov2_answers().at(name + " features")),
            1e-5)
            << name;
}

TEST(Dinov2, of_a_grey_image_equals_that_of_three_equal_channels) {
    const Tensor grey = at::linspace(-1, 1, 24 * 24).reshape({1, 1, 24, 24});
    EXPECT_TRUE(golden_dinov2().features(grey).features.equal(
        golden_dinov2().features(grey.expand({1, 3, 24, 24})).features));
    core::expect_contains(error_of([&] { golden_dinov2().features(at::zeros({1, 2, 8, 8})); }),
                          "1 or 3 channels");
    EXPECT_EQ(golden_dinov2().features(at::zeros({0, 3, 8, 8})).features.size(0), 0);
}

TEST(Dinov2, reports_invalid_weights) {
    const auto error_with = [](const std::string& name, const std::function<Tensor()>& tensor) {
        models::NamedTensors weights = golden_dinov2_state();
        if (tensor) weights[name] = tensor;
        else weights.erase(name);
        return error_of([&] { Dinov2(weights, "weights.pth"); });
    };
    const std::string layer = "encoder.layer.1.";
    core::expect_contains(
        error_with(layer + "attention.attention.key.weight", {}),
        "weights.pth: has no tensor \"" + layer + "attention.attention.key.weight\"");
    core::expect_contains(error_with(layer + "mlp.fc1.weight", {}), "has no tensor");
    core::expect_contains(
        error_with("embeddings.position_embeddings", [] { return at::zeros({1, 27, 128}); }),
        "is [1,27,128], DINOv2 has [1,26,128]");
    core::expect_contains(
        error_with(layer + "layer_scale2.lambda1", [] { return at::full({128}, NAN); }),
        "not finite");
    const std::string patches = "embeddings.patch_embeddings.projection.weight";
    core::expect_contains(error_with(patches, [] { return at::zeros({100, 3, 14, 14}); }),
                          "its width is 100");
    core::expect_contains(error_with(patches, [] { return at::zeros({128, 3, 15, 15}); }),
                          "patches of 15 pixels");
    core::expect_contains(error_with(patches, [] { return at::zeros({128}); }),
                          "4 dimensions are expected");
}

/// The golden state by the names of facebookresearch/dinov2.
models::NamedTensors state_by_the_authors_names() {
    const std::map<std::string, std::string> names{
        {"embeddings.cls_token", "cls_token"},
        {"embeddings.mask_token", "mask_token"},
        {"embeddings.position_embeddings", "pos_embed"},
        {"embeddings.patch_embeddings.projection", "patch_embed.proj"},
        {"layernorm", "norm"},
        {"attention.output.dense", "attn.proj"},
        {"layer_scale1.lambda1", "ls1.gamma"},
        {"layer_scale2.lambda1", "ls2.gamma"},
        {"encoder.layer.", "blocks."}};
    models::NamedTensors state = golden_dinov2_state(), renamed;
    for (const auto& [name, read] : state) {
        if (name.find("attention.attention.") != std::string::npos) continue;
        std::string other = name;
        for (const auto& [from, to] : names) {
            if (const auto at = other.find(from); at != std::string::npos)
                other.replace(at, from.size(), to);
        }
        renamed[other] = read;
    }
    for (const std::string layer : {"0", "1"}) {
        for (const std::string suffix : {".weight", ".bias"}) {
            const std::string of = "encoder.layer." + layer + ".attention.attention.";
            const Tensor all =
                at::cat({state.at(of + "query" + suffix)(), state.at(of + "key" + suffix)(),
                         state.at(of + "value" + suffix)()});
            renamed["blocks." + layer + ".attn.qkv" + suffix] = [all] { return all; };
        }
    }
    return renamed;
}

TEST(Dinov2, of_the_authors_files_is_the_same) {
    const Dinov2 network(state_by_the_authors_names(), "dinov2.pth");
    EXPECT_EQ(network.hash(), golden_dinov2().hash());
    const auto error_with = [](const std::string& name, const Tensor& tensor) {
        models::NamedTensors weights = state_by_the_authors_names();
        weights[name] = [tensor] { return tensor; };
        return error_of([&] { Dinov2(weights, "dinov2.pth"); });
    };
    core::expect_contains(error_with("register_tokens", at::zeros({1, 4, 128})),
                          "dinov2.pth: has register tokens");
    core::expect_contains(error_with("blocks.1.attn.qkv.weight", at::zeros({383, 128})),
                          "dinov2.pth: tensor \"blocks.1.attn.qkv.weight\" is [383,128]");
    core::expect_contains(error_with("blocks.1.attn.qkv.weight", at::zeros({381, 128})),
                          "attention.query.weight\" is [127,128], DINOv2 has [128,128]");
}

TEST(Evaluator, on_dinov2_features_says_so_in_names_and_protocol) {
    Protocol protocol;
    protocol.count = 20;
    const nlohmann::json result = Evaluator(halves(40, 1), &golden_dinov2(), protocol)
                                      .evaluate({real_samples(halves(30, 3)), "real", {}});
    for (const char* name :
         {"dinov2_distance", "kernel_dinov2_distance", "monge_dinov2_distance"}) {
        EXPECT_TRUE(result.at("metrics").contains(name)) << name;
        EXPECT_TRUE(result.at("classes").at(1).contains(name)) << name;
    }
    EXPECT_FALSE(result.at("metrics").contains("class_agreement"));
    EXPECT_EQ(result.at("protocol").at("dinov2"), golden_dinov2().hash());
    EXPECT_EQ(result.at("protocol").at("resize"), golden_dinov2().resizing());
}

}  // namespace
}  // namespace atelier::metrics
