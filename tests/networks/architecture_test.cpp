#include "atelier/networks/architecture.h"

#include <algorithm>

#include "networks/network_fixtures.h"

namespace atelier::networks {

namespace {

using backends::error_of;
using backends::expect_contains;

/// Values of all keys that architectures read.
const nlohmann::json values{{"model_channels", 32},
                            {"channel_mult", {1, 2}},
                            {"num_blocks", 1},
                            {"attention_resolutions", nlohmann::json::array()},
                            {"channel_mult_emb", 4},
                            {"patch_size", 1},
                            {"hidden", 16},
                            {"blocks", 2},
                            {"heads", 0}};

nlohmann::json described(const std::string& name) {
    const bool points = known_architectures().at(name).samples == Architecture::Samples::points;
    return describe(name, values, points ? graph::Shape{2} : graph::Shape{4, 8, 8}, 32);
}

}  // namespace

TEST(Architecture, every_one_is_built_as_it_is_described) {
    for (const std::string& name : architectures()) {
        const Network network = network_of(described(name));
        EXPECT_EQ(network.architecture, name);
        EXPECT_EQ(network.label_dim, 32) << name;
        EXPECT_TRUE(same_parameters(described(name), described(name))) << name;
        for (const std::string& key : known_architectures().at(name).keys)
            EXPECT_TRUE(values.contains(key)) << name << " " << key;
    }
}

TEST(Architecture, every_size_changes_the_parameters_and_one_that_is_missing_is_named) {
    for (const auto& [name, architecture] : known_architectures()) {
        const nlohmann::json config = described(name);
        EXPECT_FALSE(same_parameters(config, resized(config, {.width = 64}, "x"))) << name;
        EXPECT_FALSE(same_parameters(config, resized(config, {.depth = 3}, "x"))) << name;
        EXPECT_TRUE(same_parameters(config, resized(config, {}, "x"))) << name;
        const Sizes levels{.levels = {1, 4}};
        if (architecture.levels.empty())
            EXPECT_THROW(resized(config, levels, "x"), core::UsageError);
        else EXPECT_FALSE(same_parameters(config, resized(config, levels, "x"))) << name;
    }
    expect_contains(
        error_of(
            [] { resized({{"architecture", "adm_unet"}, {"num_blocks", 1}}, {}, "DIR/x.json"); }),
        "DIR/x.json: \"model_channels\"");
    expect_contains(error_of([] { resized({{"architecture", "sd_unet"}}, {}, "x.json"); }),
                    "\"unet\"");
    expect_contains(error_of([] { resized({{"hidden", 4}}, {}, "x.json"); }), "architecture");
}

TEST(Architecture, a_size_of_any_key_makes_other_parameters) {
    // Keys that students do not set differ too, where a teacher of another run is named.
    nlohmann::json config = described("adm_unet"), other = config;
    other["channel_mult_emb"] = 2;
    EXPECT_FALSE(same_parameters(config, other));
}

TEST(Architecture, for_other_samples_is_refused_with_those_that_fit) {
    const auto refused = [](const std::string& name, const graph::Shape& sample) {
        return error_of<core::UsageError>([&] { describe(name, values, sample, 0); });
    };
    EXPECT_EQ(refused("mlp", {3, 8, 8}),
              "network.architecture = \"mlp\" is for points; the data are images, use adm_unet or "
              "dit or song_unet");
    expect_contains(refused("song_unet", {2}), "the data are points, use mlp");
}

TEST(LabelEmbedding, is_a_parameter_with_a_column_for_each_class) {
    for (const char* name : {"adm_unet", "song_unet", "dit", "mlp"}) {
        const Network network = network_of(described(name));
        const auto parameters = trace(network).parameters;
        const auto found =
            std::ranges::find(parameters, network.label_embedding, &graph::ParameterSpec::name);
        ASSERT_NE(found, parameters.end()) << name;
        EXPECT_EQ(found->shape.at(1), network.label_dim);
    }
    EXPECT_TRUE(network_of(described("sd_unet")).label_embedding.empty());
}

}  // namespace atelier::networks
