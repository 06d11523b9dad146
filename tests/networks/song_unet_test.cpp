#include "atelier/networks/song_unet.h"

#include <algorithm>

#include "networks/network_fixtures.h"

namespace atelier::networks {

namespace {

using nlohmann::json;

/// The smallest DDPM++ with all features.
json small_song() {
    return {{"architecture", "song_unet"},
            {"resolution", 8},
            {"channels", 2},
            {"classes", 3},
            {"model_channels", 16},
            {"channel_mult", {1, 2}},
            {"num_blocks", 1},
            {"attention_resolutions", {4}}};
}

json with(json config, const json& changes) {
    config.update(changes);
    return config;
}

json ncsnpp(const json& config) {
    return with(config, {{"embedding_type", "fourier"},
                         {"channel_mult_noise", 2},
                         {"encoder_type", "residual"},
                         {"resample_filter", {1, 3, 3, 1}}});
}

/// EDM's CIFAR-10 networks.
json cifar10() {
    return {{"architecture", "song_unet"},
            {"resolution", 32},
            {"channels", 3},
            {"augment_dim", 9},
            {"model_channels", 128},
            {"channel_mult", {2, 2, 2}},
            {"num_blocks", 4},
            {"attention_resolutions", {16}}};
}

std::int64_t trained_count(const json& config) {
    auto specs = trace(network_of(config)).parameters;
    std::erase_if(specs,
                  [](const graph::ParameterSpec& spec) { return backends::is_buffer(spec.name); });
    return parameter_count(specs);
}

}  // namespace

TEST(SongUNet, has_as_many_parameters_as_edms_cifar10_networks) {
    EXPECT_EQ(trained_count(cifar10()), 55'733'891);
    EXPECT_EQ(bottleneck_shape(network_of(cifar10())), (graph::Shape{1, 256, 8, 8}));
}

TEST(SongUNet, encode_is_the_bottleneck_of_forward) {
    for (const json& config :
         {small_song(), ncsnpp(small_song()),
          with(small_song(),
               {{"encoder_type", "skip"}, {"decoder_type", "skip"}, {"classes", 0}})}) {
        expect_encode_is_the_bottleneck_of_forward(network_of(config));
    }
}

TEST(SongUNet, every_input_matters_to_its_own_sample) {
    expect_every_input_to_matter_to_its_own_sample(network_of(small_song()));
    expect_every_input_to_matter_to_its_own_sample(network_of(ncsnpp(small_song())));
}

TEST(SongUNet, without_augment_labels_is_as_with_zeros) {
    const Network network = network_of(with(small_song(), {{"augment_dim", 5}}));
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    backends::TorchOps backend(parameters);
    TensorInputs inputs = inputs_for(network, 2);
    const auto raw = [&] { return forward(network, backend, inputs).raw; };
    const Tensor without = raw();
    inputs.augment = at::zeros({2, 5});
    EXPECT_LT(backends::relative_distance(raw(), without), 1e-6);
    inputs.augment = at::ones({2, 5});
    EXPECT_GT(backends::relative_distance(raw(), without), 1e-3);
}

TEST(SongUNet, a_bad_config_is_one_line_that_names_file_and_key) {
    const auto expect_named = [](const json& config, const std::string& key) {
        const std::string message = config_error(config);
        backends::expect_contains(message, "config.json");
        backends::expect_contains(message, key);
        EXPECT_EQ(message.find('\n'), message.npos);
    };
    for (const char* key : {"resolution", "channels", "model_channels", "channel_mult",
                            "num_blocks", "attention_resolutions"}) {
        json config = small_song();
        config.erase(key);
        expect_named(config, key);
        expect_named(with(small_song(), {{key, "many"}}), key);
    }
    for (const char* key : {"embedding_type", "encoder_type", "decoder_type"})
        expect_named(with(small_song(), {{key, "magic"}}), key);
    expect_named(with(small_song(), {{"resample_filter", {1, 2, 1}}}), "resample_filter");
    expect_named(with(small_song(), {{"resolution", 9}}), "resolution");
    expect_named(with(small_song(), {{"model_channels", 17}}), "model_channels");
    expect_named(with(small_song(), {{"model_channels", 14}, {"channel_mult", {1, 3}}}),
                 "model_channels");  // 42 channels, 10 groups
}

}  // namespace atelier::networks
