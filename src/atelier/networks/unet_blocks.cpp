#include "atelier/networks/unet_blocks.h"

#include <algorithm>

namespace atelier::networks {

namespace {

ops::Value attend(ops::Ops& ops, const ops::Value& x, const std::string& name) {
    const std::int64_t channels = ops.shape(x)[1];
    const ops::Convolution pointwise{.out_channels = 3 * channels, .kernel = 1, .padding = 0};
    const ops::Convolution projection{.out_channels = channels, .kernel = 1, .padding = 0, .init = ops::zeros};
    const ops::Value qkv = ops.conv2d(unet_norm(ops, x, name + ".norm2"), name + ".qkv", pointwise);
    return ops.add(x, ops.conv2d(ops.attention(qkv, attention_heads(channels)), name + ".proj", projection));
}

}  // namespace

std::int64_t attention_heads(std::int64_t channels) { return channels / 64; }

ops::Value unet_norm(ops::Ops& ops, const ops::Value& x, const std::string& name, const UNetNorm& options) {
    const std::int64_t groups = std::max<std::int64_t>(1, std::min<std::int64_t>(32, ops.shape(x)[1] / 4));
    return ops.group_norm(x, name, {.groups = groups, .silu = options.silu, .modulation = options.modulation});
}

ops::Value unet_block(ops::Ops& ops, const ops::Value& x, const ops::Value& embedding, const std::string& name,
                      const UNetBlock& options) {
    ops::Value h = ops.resample(unet_norm(ops, x, name + ".norm0", {.silu = true}), options.resample);
    h = ops.conv2d(h, name + ".conv0", {.out_channels = options.out_channels});
    const ops::Value modulation = ops.linear(embedding, name + ".affine", {.out_features = 2 * options.out_channels});
    h = unet_norm(ops, h, name + ".norm1", {.silu = true, .modulation = &modulation});
    h = ops.conv2d(h, name + ".conv1", {.out_channels = options.out_channels, .init = ops::zeros});

    ops::Value skip = ops.resample(x, options.resample);
    if (ops.shape(x)[1] != options.out_channels) {
        skip = ops.conv2d(skip, name + ".skip", {.out_channels = options.out_channels, .kernel = 1, .padding = 0});
    }
    const ops::Value out = ops.add(h, skip);
    return options.attention && attention_heads(options.out_channels) > 0 ? attend(ops, out, name) : out;
}

}  // namespace atelier::networks
