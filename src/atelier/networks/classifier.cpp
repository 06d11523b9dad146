#include "atelier/networks/classifier.h"

#include "atelier/core/error.h"
#include "atelier/networks/unet_blocks.h"

namespace atelier::networks {

ClassifierOutput classifier(graph::Builder& ops, const ClassifierConfig& config,
                            const graph::Value& images) {
    const auto layer = [&](const graph::Value& x, const std::string& name, std::int64_t channels,
                           std::int64_t stride) {
        const graph::Value h =
            ops.conv2d(x, name + ".conv", {.out_channels = channels, .stride = stride});
        return unet_norm(ops, h, name + ".norm", {.silu = true});
    };
    const graph::Value fine = layer(images, "layer0", config.width, 1);
    graph::Value middle = layer(fine, "layer1", 2 * config.width, 2);
    middle = ops.add(middle, layer(middle, "layer2", 2 * config.width, 1));
    graph::Value coarse = layer(middle, "layer3", config.features, 2);
    coarse = ops.add(coarse, layer(coarse, "layer4", config.features, 1));
    const graph::Value features = ops.global_average(coarse);
    return {features,
            ops.linear(ops.silu(features), "logits", {.out_features = config.classes}),
            {fine, middle, coarse}};
}

graph::Graph classifier_graph(const ClassifierConfig& config) {
    const graph::Shape images{1, config.channels, config.resolution, config.resolution};
    return graph::record({images}, [&](graph::Builder& ops, std::span<const graph::Value> in) {
        const ClassifierOutput out = classifier(ops, config, in[0]);
        std::vector<graph::Value> outputs{out.features, out.logits};
        outputs.insert(outputs.end(), out.layers.begin(), out.layers.end());
        return outputs;
    });
}

ClassifierConfig read_classifier_config(const core::JsonObject& json) {
    if (json.text("architecture") != "classifier") {
        core::fail("{}: this is a \"{}\", not a classifier", json.where(),
                   json.text("architecture"));
    }
    ClassifierConfig config;
    config.resolution = json.integer("resolution", 4, 4096);
    config.channels = json.integer("channels", 1, 1024);
    config.classes = json.integer("classes", 2, 1'000'000);
    config.width = json.integer("width", 4, 4096);
    config.features = json.integer("features", 4, 8192);
    return config;
}

}  // namespace atelier::networks
