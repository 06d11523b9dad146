#include "atelier/networks/classifier.h"
#include "atelier/networks/discriminator.h"
#include "networks/network_fixtures.h"

namespace atelier::networks {

namespace {

graph::Graph head_on(const graph::Shape& bottleneck) {
    graph::Graph head =
        graph::record({bottleneck}, [](graph::Builder& ops, std::span<const graph::Value> in) {
            return std::vector{discriminator_head(ops, in[0])};
        });
    EXPECT_EQ(head.shape(head.outputs[0]), (graph::Shape{bottleneck[0], 1}));
    return head;
}

Tensor logits_of(const graph::Graph& head, const backends::Parameters& parameters,
                 const Tensor& bottleneck) {
    return backends::TorchOps(parameters).run(head, std::span(&bottleneck, 1))[0];
}

}  // namespace

TEST(DiscriminatorHead, on_the_teachers_bottleneck_matches_dmd2) {
    // conv 4x4 stride 2 -> GN -> SiLU -> conv 4x4 -> GN -> SiLU -> conv 1x1 -> logit.
    const std::int64_t convolution = 768 * 768 * 4 * 4 + 768, norm = 2 * 768, logit = 768 + 1;
    EXPECT_EQ(parameter_count(head_on({2, 768, 8, 8}).parameters),
              2 * (convolution + norm) + logit);
}

TEST(DiscriminatorHead, gives_one_logit_per_sample_on_bottlenecks_of_any_size) {
    for (const std::int64_t size : {1, 2, 3, 4, 5, 7, 8, 16}) {
        for (const std::int64_t channels : {4, 36, 64}) {
            const graph::Graph head = head_on({3, channels, size, size});
            const backends::Parameters parameters = backends::filled(head.parameters);
            const Tensor h = backends::normal({3, channels, size, size}, "h");
            const Tensor logits = logits_of(head, parameters, h);
            EXPECT_EQ(logits.sizes().vec(), (graph::Shape{3, 1}));
            EXPECT_GT((logits[0] - logits[1]).abs().item<double>(), 1e-4)
                << channels << " channels of " << size << "x" << size;
        }
    }
}

TEST(DiscriminatorHead, sees_every_pixel_of_the_bottleneck) {
    for (const std::int64_t size : {3, 4, 7, 8}) {
        const graph::Graph head = head_on({1, 8, size, size});
        const backends::Parameters parameters = backends::filled(head.parameters);
        const Tensor h = backends::normal({1, 8, size, size}, "h").requires_grad_();
        const Tensor logit = logits_of(head, parameters, h).sum();
        EXPECT_GT(backends::gradients_of(logit, {h})[0].abs().amax({0, 1}).min().item<double>(),
                  1e-6)
            << size;
    }
}

TEST(DiscriminatorHead, supports_features_of_points_too) {
    const graph::Graph head = head_on({5, 16});
    EXPECT_EQ(parameter_count(head.parameters), 2 * 16 + 2 * (16 * 16 + 16) + 17);
    const backends::Parameters parameters = backends::filled(head.parameters);
    EXPECT_EQ(logits_of(head, parameters, backends::normal({5, 16}, "h")).sizes().vec(),
              (graph::Shape{5, 1}));
}

TEST(DiscriminatorHead, keeps_its_parameters_under_head) {
    for (const graph::Shape& bottleneck :
         {graph::Shape{1, 8, 8, 8}, graph::Shape{1, 8, 2, 2}, graph::Shape{1, 8}}) {
        for (const auto& spec : head_on(bottleneck).parameters)
            EXPECT_TRUE(spec.name.starts_with("head.")) << spec.name;
    }
}

TEST(Classifier, gives_features_logits_and_the_maps_of_its_layers) {
    const ClassifierConfig config{
        .resolution = 28, .channels = 1, .classes = 10, .width = 8, .features = 24};
    const graph::Graph graph = classifier_graph(config);
    const backends::Parameters parameters = backends::filled(graph.parameters);
    const Tensor images = backends::normal({3, 1, 28, 28}, "images");
    const auto seen = backends::TorchOps(parameters).run(graph, std::span(&images, 1));
    ASSERT_EQ(seen.size(), 5U);
    EXPECT_EQ(seen[0].sizes().vec(), (graph::Shape{3, 24}));  // features
    EXPECT_EQ(seen[1].sizes().vec(), (graph::Shape{3, 10}));  // logits
    EXPECT_EQ(seen[2].sizes().vec(), (graph::Shape{3, 8, 28, 28}));
    EXPECT_EQ(seen[3].sizes().vec(), (graph::Shape{3, 16, 14, 14}));
    EXPECT_EQ(seen[4].sizes().vec(), (graph::Shape{3, 24, 7, 7}));
}

TEST(Classifier, a_bad_config_names_file_and_key) {
    const nlohmann::json good{{"architecture", "classifier"},
                              {"resolution", 28},
                              {"channels", 1},
                              {"classes", 10},
                              {"width", 32},
                              {"features", 128}};
    const auto error = [](const nlohmann::json& config) {
        return backends::error_of(
            [&] { read_classifier_config(core::JsonObject(config, "config.json")); });
    };
    EXPECT_EQ(read_classifier_config(core::JsonObject(good, "config.json")).features, 128);
    for (const char* key :
         {"architecture", "resolution", "channels", "classes", "width", "features"}) {
        nlohmann::json bad = good;
        bad.erase(key);
        backends::expect_contains(error(bad), "config.json");
        backends::expect_contains(error(bad), key);
    }
    nlohmann::json other = good;
    other["architecture"] = "mlp";
    backends::expect_contains(error(other), "\"mlp\", not a classifier");
}

}  // namespace atelier::networks
