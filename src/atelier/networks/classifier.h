#pragma once

#include "atelier/networks/network.h"

namespace atelier::networks {

struct ClassifierConfig {
    std::int64_t resolution = 28, channels = 1, classes = 10;
    std::int64_t width = 32;
    std::int64_t features = 128;  // dimension of the features that feature distances use
};

/// The outputs of a classifier for images [N,channels,resolution,resolution]: `features` [N,F]
/// before the last layer, `logits` [N,classes], and the feature maps of its layers, [N,C,h,w] each.
struct ClassifierOutput {
    graph::Value features, logits;
    std::vector<graph::Value> layers;
};

/// A small convolutional classifier. Its features are the reference features for small grey images,
/// as Inception's are for photographs; distances based on them are named as such and are not FID.
ClassifierOutput classifier(graph::Builder& ops, const ClassifierConfig& config,
                            const graph::Value& images);

/// Its graph for any batch of images: outputs features, logits and the layers.
graph::Graph classifier_graph(const ClassifierConfig& config);

/// Reads a classifier's config.json (`architecture` is "classifier"). Throws core::Error naming
/// file and key.
ClassifierConfig read_classifier_config(const core::JsonObject& config);

}  // namespace atelier::networks
