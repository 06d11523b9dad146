#include "atelier/networks/transformer_blocks.h"

namespace atelier::networks {

using graph::Value;

Value modulated(graph::Builder& ops, Value x, Value shift, Value scale) {
    return ops.add(ops.multiply(x, ops.scale(scale, 1, 1)), shift);
}

Value part_of(graph::Builder& ops, Value row, std::int64_t i, std::int64_t width) {
    return ops.slice(row, i * width, width);
}

Value embedded(graph::Builder& ops, Value x, const std::string& name, std::int64_t width) {
    const Value inner = ops.silu(ops.linear(x, name + ".linear_1", {.out_features = width}));
    return ops.linear(inner, name + ".linear_2", {.out_features = width});
}

Value feed_forward(graph::Builder& ops, Value x, const std::string& name, FeedForward kind) {
    const std::int64_t width = ops.shape(x)[2];
    const bool gated = kind == FeedForward::geglu;
    const Value inner =
        ops.linear(x, name + ".net.0.proj", {.out_features = (gated ? 8 : 4) * width});
    const Value active = gated ? ops.geglu(inner) : ops.gelu(inner, kind == FeedForward::gelu_tanh);
    return ops.linear(active, name + ".net.2", {.out_features = width});
}

Value image_of_patches(graph::Builder& ops, Value tokens, std::int64_t height, std::int64_t width,
                       std::int64_t patch) {
    const Value image = ops.image(tokens, height, width);
    return patch == 1 ? image : ops.pixel_shuffle(image, patch, /*blocks_first=*/true);
}

Value patches_of_image(graph::Builder& ops, Value image, const std::string& name,
                       std::int64_t patch, std::int64_t width) {
    return ops.tokens(ops.conv2d(
        image, name, {.out_channels = width, .kernel = patch, .stride = patch, .padding = 0}));
}

}  // namespace atelier::networks
