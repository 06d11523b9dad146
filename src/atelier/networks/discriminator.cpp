#include "atelier/networks/discriminator.h"

#include "atelier/networks/unet_blocks.h"

namespace atelier::networks {

namespace {

graph::Value on_features(graph::Builder& ops, const graph::Value& features) {
    const std::int64_t width = ops.shape(features)[1];
    graph::Value h = ops.silu(ops.layer_norm(features, "head.norm0", 1e-5));
    h = ops.silu(ops.linear(h, "head.layer0", {.out_features = width}));
    h = ops.silu(ops.linear(h, "head.layer1", {.out_features = width}));
    return ops.linear(h, "head.logit", {.out_features = 1});
}

graph::Value on_images(graph::Builder& ops, const graph::Value& bottleneck) {
    graph::Value h = bottleneck;
    const std::int64_t channels = ops.shape(h)[1];
    if (ops.shape(h)[2] > 4) {
        h = ops.conv2d(h, "head.conv0",
                       {.out_channels = channels, .kernel = 4, .stride = 2, .padding = 1});
        h = unet_norm(ops, h, "head.norm0", {.silu = true});
    }
    const std::int64_t left = ops.shape(h)[2];
    h = ops.conv2d(h, "head.conv1",
                   {.out_channels = channels, .kernel = left, .stride = left, .padding = 0});
    h = unet_norm(ops, h, "head.norm1", {.silu = true});
    h = ops.conv2d(h, "head.logit", {.out_channels = 1, .kernel = 1, .padding = 0});
    return ops.global_average(h);
}

}  // namespace

graph::Value discriminator_head(graph::Builder& ops, const graph::Value& bottleneck) {
    return ops.shape(bottleneck).size() == 4 ? on_images(ops, bottleneck)
                                             : on_features(ops, bottleneck);
}

}  // namespace atelier::networks
