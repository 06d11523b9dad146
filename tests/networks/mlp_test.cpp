#include "atelier/networks/mlp.h"

#include "networks/network_fixtures.h"

namespace atelier::networks {

namespace {

nlohmann::json config(std::int64_t classes, std::int64_t blocks = 3) {
    return {{"architecture", "mlp"},
            {"dimensions", 5},
            {"classes", classes},
            {"hidden", 16},
            {"blocks", blocks}};
}

bool reads_labels(const Network& network) {
    for (const auto& spec : trace(network).parameters) {
        if (spec.name == "model.map_label.weight") return true;
    }
    return false;
}

}  // namespace

TEST(Mlp, maps_points_to_points_with_and_without_classes) {
    for (const std::int64_t classes : {0, 4}) {
        const Network network = network_of(config(classes));
        EXPECT_EQ(network.data_shape, (graph::Shape{5}));
        EXPECT_EQ(network.label_dim, classes);
        EXPECT_EQ(reads_labels(network), classes > 0);
        expect_every_input_to_matter_to_its_own_sample(network);
    }
}

TEST(Mlp, encode_is_the_bottleneck_of_forward) {
    for (const std::int64_t blocks : {1, 2, 3}) {
        expect_encode_is_the_bottleneck_of_forward(network_of(config(4, blocks)));
        EXPECT_EQ(bottleneck_shape(network_of(config(4, blocks))), (graph::Shape{1, 16}));
    }
}

TEST(Mlp, initially_outputs_zero) {
    const Network network = network_of(config(4));
    const backends::Parameters parameters = backends::initialise(trace(network).parameters, 1);
    backends::TorchOps backend(parameters);
    EXPECT_TRUE(forward(network, backend, inputs_for(network, 2)).raw.equal(at::zeros({2, 5})));
}

TEST(Mlp, a_bad_config_names_file_and_key) {
    for (const char* key : {"dimensions", "hidden", "blocks"}) {
        nlohmann::json missing = config(0), zero = config(0);
        missing.erase(key);
        zero[key] = 0;
        for (const auto& bad : {missing, zero}) {
            backends::expect_contains(config_error(bad), "config.json");
            backends::expect_contains(config_error(bad), key);
        }
    }
    nlohmann::json odd = config(0);
    odd["hidden"] = 17;
    backends::expect_contains(config_error(odd), "hidden");
    backends::expect_contains(config_error(config(-1)), "classes");
}

}  // namespace atelier::networks
