#include "atelier/networks/architecture.h"

#include <algorithm>

#include "networks/network_fixtures.h"

namespace atelier::networks {

namespace {

using backends::error_of;
using backends::expect_contains;

/// Values of all keys that architectures read.
const nlohmann::json values{
    {"model_channels", 32},
    {"channel_mult", {1, 2}},
    {"num_blocks", 1},
    {"attention_resolutions", nlohmann::json::array()},
    {"channel_mult_emb", 4},
    {"patch_size", 1},
    {"hidden", 16},
    {"blocks", 2},
    {"heads", 0},
};

nlohmann::json described(const std::string& name) {
    const bool points = known_architectures().at(name).samples == Architecture::Samples::points;
    return describe(name, values, points ? graph::Shape{2} : graph::Shape{4, 8, 8}, 32);
}

/// The architectures that a run takes for samples of a shape, as messages list them.
std::string those_for(const graph::Shape& sample) {
    std::string names;
    for (const auto& [name, architecture] : known_architectures()) {
        if (!architecture.fits(sample) || architecture.samples == Architecture::Samples::latents)
            continue;
        names += (names.empty() ? "" : " or ") + name;
    }
    return names;
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
    const graph::Shape point{2}, image{3, 8, 8};
    ASSERT_NE(those_for(point), "");
    ASSERT_NE(those_for(image), "");
    for (const auto& [name, architecture] : known_architectures()) {
        const bool points = architecture.samples == Architecture::Samples::points;
        EXPECT_EQ(refused(name, points ? image : point),
                  fmt::format("network.architecture = \"{}\" is for {}; the data are {}, use {}",
                              name, points ? "points" : "images", points ? "images" : "points",
                              those_for(points ? image : point)));
    }
}

TEST(Architecture, says_what_the_side_of_images_must_be_a_multiple_of) {
    for (const auto& [name, architecture] : known_architectures()) {
        if (architecture.side_unit == nullptr) continue;
        for (const std::string& key : architecture.side_keys)
            EXPECT_TRUE(architecture.reads(key)) << name << " " << key;
        nlohmann::json config = described(name);
        if (!architecture.levels.empty()) config[architecture.levels] = {1, 1, 1};
        if (architecture.reads("patch_size")) config["patch_size"] = 2;
        const std::int64_t unit = architecture.side_unit(config);
        EXPECT_GT(unit, 1) << name;
        for (std::int64_t side = unit; side < 3 * unit; ++side) {
            config["resolution"] = side;
            const graph::Shape sample{4, side, side};
            // The builder knows by itself, too.
            if (side % unit == 0) {
                EXPECT_NO_THROW(check_side(config, sample)) << name << " " << side;
                EXPECT_EQ(network_of(config).data_shape, sample) << name;
            } else {
                EXPECT_THROW(check_side(config, sample), core::UsageError) << name << " " << side;
                EXPECT_THROW(network_of(config), core::Error) << name << " " << side;
            }
        }
    }
    nlohmann::json config = described("adm_unet");
    config["channel_mult"] = {1, 2, 2};
    config["patch_size"] = 4;
    EXPECT_EQ(error_of<core::UsageError>([&] { check_side(config, {3, 24, 24}); }),
              "images of 24x24 (data.shape) do not fit adm_unet with network.patch_size = 4 and "
              "network.channel_mult = [1,2,2]: the side must be a multiple of 16. For 24 pixels "
              "take network.patch_size = 1, 2, 3, 6; or import the images at 16 or 32 pixels");
    config = described("song_unet");
    config["channel_mult"] = {1, 2, 2};
    expect_contains(error_of<core::UsageError>([&] { check_side(config, {3, 6, 6}); }),
                    "a multiple of 4. For 6 pixels take fewer levels (network.channel_mult); or "
                    "import the images at 4 or 8 pixels");
}

TEST(Architecture, help_says_whose_key_it_is) {
    for (const auto& [name, architecture] : known_architectures()) {
        for (const std::string& key : architecture.keys) {
            const std::string readers = ", " + readers_of(key) + ",";
            EXPECT_NE(readers.find(", " + name + ","), readers.npos) << key << ": " << readers;
        }
    }
    EXPECT_EQ(readers_of("hidden"), "dit, mlp");
    EXPECT_EQ(readers_of("nothing"), "");
}

TEST(LabelEmbedding, is_a_parameter_with_a_column_for_each_class) {
    for (const std::string& name : architectures()) {
        const Network network = network_of(described(name));
        EXPECT_EQ(network.label_embedding.empty(), network.tokens > 0) << name << ": of texts none";
        if (network.label_embedding.empty()) continue;
        const auto parameters = trace(network).parameters;
        const auto found =
            std::ranges::find(parameters, network.label_embedding, &graph::ParameterSpec::name);
        ASSERT_NE(found, parameters.end()) << name;
        EXPECT_EQ(found->shape.at(1), network.label_dim);
    }
}

}  // namespace atelier::networks
