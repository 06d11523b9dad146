#include "atelier/networks/adm_unet.h"

#include <algorithm>

#include "networks/network_fixtures.h"

namespace atelier::networks {

namespace {

using nlohmann::json;

/// The smallest with all features: two levels, attention, classes.
json small_adm() {
    return {{"architecture", "adm_unet"},
            {"resolution", 8},
            {"channels", 2},
            {"classes", 3},
            {"model_channels", 16},
            {"channel_mult", {1, 4}},
            {"num_blocks", 1},
            {"attention_resolutions", {4}}};
}

json with(json config, const std::string& key, const json& value) {
    config[key] = value;
    return config;
}

json paper(std::int64_t width, const std::vector<std::int64_t>& mult, std::int64_t blocks) {
    return {{"architecture", "adm_unet"},
            {"resolution", 64},
            {"channels", 3},
            {"classes", 1000},
            {"model_channels", width},
            {"channel_mult", mult},
            {"num_blocks", blocks},
            {"attention_resolutions", {32, 16, 8}}};
}

std::vector<std::string> names_of(const json& config) {
    std::vector<std::string> names;
    for (const auto& spec : trace(network_of(config)).parameters) names.push_back(spec.name);
    return names;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
    return std::ranges::find(names, name) != names.end();
}

}  // namespace

TEST(AdmUNet, has_as_many_parameters_as_in_the_paper) {
    const auto count = [](const json& config) {
        return parameter_count(trace(network_of(config)).parameters);
    };
    EXPECT_EQ(count(paper(192, {1, 2, 3, 4}, 3)), 295'899'267);  // the teacher
    EXPECT_EQ(count(paper(160, {1, 2, 2, 4}, 3)), 172'813'603);  // -42%
    EXPECT_EQ(count(paper(128, {1, 2, 2, 4}, 2)), 85'943'555);   // -71%
}

TEST(AdmUNet, the_teachers_bottleneck_is_768_channels_of_8x8) {
    EXPECT_EQ(bottleneck_shape(network_of(paper(192, {1, 2, 3, 4}, 3))),
              (graph::Shape{1, 768, 8, 8}));
}

TEST(AdmUNet, encode_is_the_bottleneck_of_forward) {
    expect_encode_is_the_bottleneck_of_forward(network_of(small_adm()));
    expect_encode_is_the_bottleneck_of_forward(network_of(with(small_adm(), "classes", 0)));
    expect_encode_is_the_bottleneck_of_forward(
        network_of(with(with(small_adm(), "resolution", 28), "patch_size", 2)));
}

TEST(AdmUNet, every_input_matters_to_its_own_sample) {
    expect_every_input_to_matter_to_its_own_sample(network_of(small_adm()));
    expect_every_input_to_matter_to_its_own_sample(network_of(with(small_adm(), "classes", 0)));
}

TEST(AdmUNet, initially_outputs_zero_so_that_a_new_denoiser_returns_the_skip) {
    const Network network = network_of(small_adm());
    const backends::Parameters parameters = backends::initialise(trace(network).parameters, 1);
    backends::TorchOps backend(parameters);
    EXPECT_TRUE(
        forward(network, backend, inputs_for(network, 2)).raw.equal(at::zeros({2, 2, 8, 8})));
}

TEST(AdmUNet, the_label_matrix_is_initialised_with_unit_standard_deviation) {
    const auto parameters =
        backends::initialise(trace(network_of(with(small_adm(), "classes", 100))).parameters, 1);
    EXPECT_NEAR(parameters.at("model.map_label.weight").square().mean().sqrt().item<double>(), 1.0,
                0.03);
}

TEST(AdmUNet, only_levels_with_at_least_64_channels_have_attention) {
    // EDM's rule: channels / 64 heads, and no head means no attention, whatever
    // attention_resolutions says.
    const auto names = names_of(with(small_adm(), "attention_resolutions", {8, 4}));
    EXPECT_TRUE(has(names, "model.enc.4x4_block0.qkv.weight"));
    EXPECT_TRUE(has(names, "model.dec.4x4_in0.qkv.weight"));
    EXPECT_FALSE(has(names, "model.dec.4x4_in1.qkv.weight"));
    EXPECT_FALSE(has(names, "model.enc.8x8_block0.qkv.weight"));
    EXPECT_FALSE(has(names, "model.dec.8x8_block0.qkv.weight"));
    const auto narrow = names_of(with(small_adm(), "channel_mult", {1, 2}));
    EXPECT_FALSE(std::ranges::any_of(
        narrow, [](const std::string& name) { return name.find("qkv") != name.npos; }));
}

TEST(AdmUNet, parameter_names_have_the_resolutions_of_the_patched_network) {
    const auto names = names_of(with(with(small_adm(), "resolution", 28), "patch_size", 2));
    EXPECT_TRUE(has(names, "model.enc.14x14_conv.weight"));
    EXPECT_TRUE(has(names, "model.dec.7x7_in0.conv0.weight"));
    const auto specs =
        trace(network_of(with(with(small_adm(), "resolution", 28), "patch_size", 2))).parameters;
    const auto first =
        std::ranges::find(specs, "model.enc.14x14_conv.weight", &graph::ParameterSpec::name);
    ASSERT_NE(first, specs.end());
    EXPECT_EQ(first->shape, (graph::Shape{16, 2 * 4, 3, 3}));
}

TEST(AdmUNet, a_bad_config_is_one_line_that_names_file_and_key) {
    const auto expect_named = [](const json& config, const std::string& key) {
        const std::string message = config_error(config);
        backends::expect_contains(message, "config.json");
        backends::expect_contains(message, key);
        EXPECT_EQ(message.find('\n'), message.npos);
    };
    for (const char* key : {"resolution", "channels", "model_channels", "channel_mult",
                            "num_blocks", "attention_resolutions"}) {
        json config = small_adm();
        config.erase(key);
        expect_named(config, key);
        expect_named(with(small_adm(), key, "many"), key);
        if (small_adm()[key].is_number()) expect_named(with(small_adm(), key, 0), key);
    }
    expect_named(with(small_adm(), "classes", -1), "classes");
    expect_named(with(small_adm(), "patch_size", 0), "patch_size");
    expect_named(with(small_adm(), "channel_mult_emb", 0), "channel_mult_emb");
    expect_named(with(small_adm(), "channel_mult", json::array()), "channel_mult");
    expect_named(with(small_adm(), "channel_mult", {1, 0}), "channel_mult");
    expect_named(with(small_adm(), "channel_mult", std::vector<int>(11, 1)), "channel_mult");
    expect_named(with(small_adm(), "resolution", 9), "resolution");
    expect_named(with(small_adm(), "patch_size", 3), "patch_size");
    expect_named(with(small_adm(), "model_channels", 17), "model_channels");
}

TEST(AdmUNet, channels_that_heads_or_groups_do_not_divide_are_rejected_when_the_config_is_read) {
    // 36*4 = 144 channels: two heads divide them, 32 groups do not. 14 channels make three groups.
    for (const json& config :
         {with(small_adm(), "model_channels", 36), with(small_adm(), "model_channels", 14)}) {
        const std::string message = config_error(config);
        backends::expect_contains(message, "config.json");
        backends::expect_contains(message, "model_channels");
    }
    backends::expect_contains(config_error(with(small_adm(), "channel_mult", {1, 13})),
                              "heads");  // 208 channels, 3 heads
}

}  // namespace atelier::networks
