#include "atelier/networks/dit.h"

#include "networks/network_fixtures.h"

namespace atelier::networks {

namespace {

nlohmann::json dit_config(std::int64_t classes) {
    return {{"architecture", "dit"}, {"channels", 3}, {"resolution", 8}, {"classes", classes},
            {"hidden", 16},          {"blocks", 3},   {"patch_size", 2}, {"heads", 2}};
}

/// The parameters of diffusers' transformer whose blocks all have the embeddings of `ours`.
backends::Parameters of_diffusers(const backends::Parameters& ours, std::int64_t blocks) {
    backends::Parameters theirs;
    const auto copy = [&](const std::string& from, const std::string& to) {
        for (const char* part : {".weight", ".bias"}) theirs.set(to + part, ours.at(from + part));
    };
    copy("model.map_patches", "pos_embed.proj");
    copy("model.affine", "proj_out_1");
    copy("model.output", "proj_out_2");
    const Tensor classes = ours.at("model.map_label.weight").t(),
                 none = at::zeros({1, classes.size(1)});
    for (std::int64_t i = 0; i < blocks; ++i) {
        const std::string mine = fmt::format("model.block{}", i),
                          its = fmt::format("transformer_blocks.{}", i), norm = its + ".norm1";
        copy(mine + ".affine", norm + ".linear");
        for (const char* layer : {".linear_1", ".linear_2"})
            copy(std::string("model.map_noise") + layer, norm + ".emb.timestep_embedder" + layer);
        theirs.set(norm + ".emb.class_embedder.embedding_table.weight", at::cat({classes, none}));
        for (const char* layer : {".attn1.to_q", ".attn1.to_k", ".attn1.to_v", ".attn1.to_out.0",
                                  ".ff.net.0.proj", ".ff.net.2"})
            copy(mine + layer, its + layer);
    }
    return theirs;
}

}  // namespace

TEST(Dit, is_diffusers_transformer_whose_blocks_share_their_embeddings) {
    const Network network = network_of(dit_config(5));
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    const TensorInputs inputs = inputs_for(network, 4);
    const TensorInputs at_steps{inputs.x, at::tensor({0.0f, 3.0f, 250.5f, 999.0f}), inputs.labels};
    const Tensor ours = forward(network, backends::TorchOps(parameters), at_steps).raw;

    const Dit theirs{.in_channels = 3,
                     .out_channels = 3,
                     .sample_size = 8,
                     .layers = 3,
                     .heads = 2,
                     .head_width = 8,
                     .classes = 5};
    const graph::Graph recorded =
        graph::record({{4, 3, 8, 8}, {4}, {4}}, theirs.functions().at("denoise").record);
    const backends::Parameters weights = of_diffusers(parameters, 3);
    const Tensor ids = inputs.labels->argmax(1);
    const Tensor expected = backends::TorchOps(weights).run(
        recorded, std::vector{at_steps.x, at_steps.c_noise, ids})[0];
    EXPECT_LT(backends::relative_distance(ours, expected), 1e-5);
}

TEST(Dit, maps_images_to_images_with_and_without_classes) {
    for (const std::int64_t classes : {0, 4}) {
        const Network network = network_of(dit_config(classes));
        EXPECT_EQ(network.data_shape, (graph::Shape{3, 8, 8}));
        EXPECT_EQ(network.label_dim, classes);
        expect_every_input_to_matter_to_its_own_sample(network);
        expect_encode_is_the_bottleneck_of_forward(network);
        EXPECT_EQ(bottleneck_shape(network), (graph::Shape{1, 16, 4, 4}));
    }
}

TEST(Dit, initially_outputs_zero) {
    const Network network = network_of(dit_config(4));
    const backends::Parameters parameters = backends::initialise(trace(network).parameters, 1);
    const backends::TorchOps backend(parameters);
    EXPECT_TRUE(
        forward(network, backend, inputs_for(network, 2)).raw.equal(at::zeros({2, 3, 8, 8})));
}

TEST(Dit, takes_one_head_for_each_64_unless_told) {
    nlohmann::json usual = dit_config(0);
    usual.erase("heads");
    for (const auto& [width, heads] : {std::pair{32, 1}, {128, 2}, {384, 6}}) {
        usual["hidden"] = width;
        nlohmann::json named = usual;
        named["heads"] = heads;
        EXPECT_EQ(trace(network_of(usual)).flops, trace(network_of(named)).flops);
    }
}

TEST(Dit, a_bad_config_names_file_and_key) {
    const auto refused = [](const char* key, const nlohmann::json& value) {
        nlohmann::json bad = dit_config(4);
        bad[key] = value;
        backends::expect_contains(config_error(bad), "config.json");
        backends::expect_contains(config_error(bad), key);
    };
    refused("hidden", 18);
    refused("hidden", 0);
    refused("heads", 3);
    refused("resolution", 9);
    refused("patch_size", 3);
    refused("blocks", 0);
    refused("channels", 0);
}

}  // namespace atelier::networks
