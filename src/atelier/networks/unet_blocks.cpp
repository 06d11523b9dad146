#include "atelier/networks/unet_blocks.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "atelier/networks/architecture.h"

namespace atelier::networks {

const UNetStyle song_style{.modulated = false,
                           .one_head = true,
                           .projected_resampling = true,
                           .skip_scale = std::sqrt(0.5),
                           .eps = 1e-6,
                           .init = {graph::Init::Kind::xavier},
                           .last_init = {graph::Init::Kind::xavier, 1e-5},
                           .attention_init = {graph::Init::Kind::xavier, std::sqrt(0.2)}};

void reject_sizes(const std::string& architecture, const std::string& where,
                  const std::string& why) {
    core::fail("{}: the sizes of this {} ({}) do not fit together: {}", where, architecture,
               fmt::join(known_architectures().at(architecture).keys, ", "), why);
}

namespace {

graph::Value add_skip(graph::Builder& ops, const graph::Value& h, const graph::Value& skip,
                      const UNetStyle& style) {
    const graph::Value sum = ops.add(h, skip);
    return style.skip_scale == 1.0 ? sum : ops.scale(sum, style.skip_scale);
}

std::int64_t heads_of(const UNetStyle& style, std::int64_t channels) {
    return style.one_head ? 1 : attention_heads(channels);
}

graph::Value attend(graph::Builder& ops, const graph::Value& x, const std::string& name,
                    const UNetStyle& style) {
    const std::int64_t channels = ops.shape(x)[1];
    const graph::Conv2d pointwise{
        .out_channels = 3 * channels, .kernel = 1, .padding = 0, .init = style.attention_init};
    const graph::Conv2d projection{
        .out_channels = channels, .kernel = 1, .padding = 0, .init = style.last_init};
    const graph::Value qkv = ops.conv2d(unet_norm(ops, x, name + ".norm2", {.eps = style.eps}),
                                        name + ".qkv", pointwise);
    return add_skip(
        ops, x,
        ops.conv2d(ops.attention(qkv, heads_of(style, channels)), name + ".proj", projection),
        style);
}

/// norm1 and SiLU, conditioned on the embedding.
graph::Value conditioned(graph::Builder& ops, const graph::Value& h, const graph::Value& embedding,
                         const std::string& name, const UNetStyle& style) {
    const std::int64_t channels = ops.shape(h)[1];
    const graph::Value projected =
        ops.linear(embedding, name + ".affine",
                   {.out_features = style.modulated ? 2 * channels : channels, .init = style.init});
    if (style.modulated)
        return unet_norm(ops, h, name + ".norm1",
                         {.silu = true, .modulation = projected, .eps = style.eps});
    return unet_norm(ops, ops.add(h, projected), name + ".norm1", {.silu = true, .eps = style.eps});
}

}  // namespace

std::int64_t attention_heads(std::int64_t channels) { return channels / 64; }

std::string level_name(const char* half, std::int64_t resolution, const std::string& what) {
    return fmt::format("model.{}.{}x{}_{}", half, resolution, resolution, what);
}

graph::Value unet_norm(graph::Builder& ops, const graph::Value& x, const std::string& name,
                       const UNetNorm& options) {
    const std::int64_t groups =
        std::max<std::int64_t>(1, std::min<std::int64_t>(32, ops.shape(x)[1] / 4));
    return ops.group_norm(x, name, {.groups = groups, .eps = options.eps, .silu = options.silu},
                          options.modulation);
}

namespace {

graph::Value inside_block(graph::Builder& ops, const graph::Value& x, const graph::Value& embedding,
                          const std::string& name, const UNetBlock& options) {
    const UNetStyle& style = options.style;
    graph::Value h = ops.resample(
        unet_norm(ops, x, name + ".norm0", {.silu = true, .eps = style.eps}), options.resample);
    h = ops.conv2d(h, name + ".conv0", {.out_channels = options.out_channels, .init = style.init});
    h = conditioned(ops, h, embedding, name, style);
    h = ops.conv2d(h, name + ".conv1",
                   {.out_channels = options.out_channels, .init = style.last_init});

    graph::Value skip = ops.resample(x, options.resample);
    const bool resampled = options.resample != graph::Resample::none;
    if (ops.shape(x)[1] != options.out_channels || (resampled && style.projected_resampling)) {
        skip = ops.conv2d(
            skip, name + ".skip",
            {.out_channels = options.out_channels, .kernel = 1, .padding = 0, .init = style.init});
    }
    const graph::Value out = add_skip(ops, h, skip, style);
    return options.attention && heads_of(style, options.out_channels) > 0
               ? attend(ops, out, name, style)
               : out;
}

}  // namespace

graph::Value unet_block(graph::Builder& ops, const graph::Value& x, const graph::Value& embedding,
                        const std::string& name, const UNetBlock& options) {
    const graph::Value inputs[]{x, embedding};
    return ops.block(inputs,
                     [name, options](graph::Builder& backend, std::span<const graph::Value> in) {
                         return inside_block(backend, in[0], in[1], name, options);
                     });
}

}  // namespace atelier::networks
