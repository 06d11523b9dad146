#include "atelier/networks/adm_unet.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/networks/unet_blocks.h"

namespace atelier::networks {

namespace {

struct AdmEncoded {
    graph::Value x, embedding;
    std::vector<graph::Value> skips;
};

std::int64_t inner_resolution(const AdmUNetConfig& config, std::size_t level) {
    return (config.resolution / config.patch_size) >> level;
}

graph::Value embed(graph::Builder& ops, const AdmUNetConfig& config, const Inputs& inputs) {
    const std::int64_t width = config.model_channels * config.channel_mult_emb;
    graph::Value e = ops.sinusoid(inputs.c_noise, {.width = config.model_channels});
    if (inputs.augment) {
        e = ops.add(
            e, ops.linear(
                   *inputs.augment, "model.map_augment",
                   {.out_features = config.model_channels, .bias = false, .init = graph::zeros}));
    }
    e = ops.silu(ops.linear(e, "model.map_layer0", {.out_features = width}));
    e = ops.linear(e, "model.map_layer1", {.out_features = width});
    if (config.classes > 0) {
        const graph::Init unit_normal{graph::Init::Kind::normal,
                                      std::sqrt(static_cast<double>(config.classes))};
        e = ops.add(e, ops.linear(*inputs.labels, "model.map_label",
                                  {.out_features = width, .bias = false, .init = unit_normal}));
    }
    return ops.silu(e);
}

bool attends(const AdmUNetConfig& config, std::int64_t resolution) {
    return std::ranges::find(config.attention_resolutions, resolution) !=
           config.attention_resolutions.end();
}

AdmEncoded encode(graph::Builder& ops, const AdmUNetConfig& config, const Inputs& inputs) {
    AdmEncoded state{inputs.x, embed(ops, config, inputs), {}};
    if (config.patch_size > 1) state.x = ops.pixel_unshuffle(state.x, config.patch_size);
    for (std::size_t level = 0; level < config.channel_mult.size(); ++level) {
        const std::int64_t resolution = inner_resolution(config, level);
        const std::int64_t channels = config.model_channels * config.channel_mult[level];
        if (level == 0) {
            state.x = ops.conv2d(state.x, level_name("enc", resolution, "conv"),
                                 {.out_channels = channels});
        } else {
            const std::int64_t same = ops.shape(state.x)[1];
            state.x =
                unet_block(ops, state.x, state.embedding, level_name("enc", resolution, "down"),
                           {.out_channels = same, .resample = graph::Resample::down});
        }
        state.skips.push_back(state.x);
        for (std::int64_t i = 0; i < config.num_blocks; ++i) {
            state.x =
                unet_block(ops, state.x, state.embedding,
                           level_name("enc", resolution, fmt::format("block{}", i)),
                           {.out_channels = channels, .attention = attends(config, resolution)});
            state.skips.push_back(state.x);
        }
    }
    return state;
}

graph::Value decode(graph::Builder& ops, const AdmUNetConfig& config, AdmEncoded state) {
    const std::size_t levels = config.channel_mult.size();
    for (std::size_t level = levels; level-- > 0;) {
        const std::int64_t resolution = inner_resolution(config, level);
        const std::int64_t same = ops.shape(state.x)[1];
        const auto block = [&](const std::string& what, const UNetBlock& options) {
            state.x = unet_block(ops, state.x, state.embedding, level_name("dec", resolution, what),
                                 options);
        };
        if (level == levels - 1) {
            block("in0", {.out_channels = same, .attention = true});
            block("in1", {.out_channels = same});
        } else {
            block("up", {.out_channels = same, .resample = graph::Resample::up});
        }
        for (std::int64_t i = 0; i <= config.num_blocks; ++i) {
            state.x = ops.concat(state.x, state.skips.back());
            state.skips.pop_back();
            block(fmt::format("block{}", i),
                  {.out_channels = config.model_channels * config.channel_mult[level],
                   .attention = attends(config, resolution)});
        }
    }
    const std::int64_t channels = config.channels * config.patch_size * config.patch_size;
    state.x = unet_norm(ops, state.x, "model.out_norm", {.silu = true});
    state.x =
        ops.conv2d(state.x, "model.out_conv", {.out_channels = channels, .init = graph::zeros});
    return config.patch_size > 1 ? ops.pixel_shuffle(state.x, config.patch_size) : state.x;
}

void check(const AdmUNetConfig& config, const std::string& where) {
    const auto deepest = static_cast<std::int64_t>(1) << (config.channel_mult.size() - 1);
    if (config.resolution % (config.patch_size * deepest) != 0) {
        core::fail("{}: resolution {} must be a multiple of patch_size x 2^(levels-1) = {}", where,
                   config.resolution, config.patch_size * deepest);
    }
    if (config.model_channels % 2 != 0) core::fail("{}: model_channels must be even", where);
    for (std::size_t level = 0; level < config.channel_mult.size(); ++level) {
        const std::int64_t channels = config.model_channels * config.channel_mult[level];
        const bool attention = level + 1 == config.channel_mult.size() ||
                               attends(config, inner_resolution(config, level));
        const std::int64_t heads = attention_heads(channels);
        if (attention && heads > 0 && channels % heads != 0) {
            core::fail("{}: level {} has {} attention heads, which do not divide its {} channels",
                       where, level, heads, channels);
        }
    }
}

}  // namespace

Outputs adm_unet(graph::Builder& ops, const AdmUNetConfig& config, const Inputs& inputs) {
    AdmEncoded encoded = encode(ops, config, inputs);
    const graph::Value bottleneck = encoded.x;
    return {decode(ops, config, std::move(encoded)), bottleneck};
}

graph::Value adm_unet_bottleneck(graph::Builder& ops, const AdmUNetConfig& config,
                                 const Inputs& inputs) {
    return encode(ops, config, inputs).x;
}

Network build_adm_unet(const core::JsonObject& json) {
    AdmUNetConfig config;
    config.resolution = json.integer("resolution", 1, 4096);
    config.channels = json.integer("channels", 1, 1024);
    config.classes = json.integer_or("classes", 0, 0, 1'000'000);
    config.model_channels = json.integer("model_channels", 4, 8192);
    config.channel_mult = json.integers("channel_mult", 1, 64);
    config.num_blocks = json.integer("num_blocks", 1, 64);
    config.attention_resolutions = json.integers("attention_resolutions", 1, 4096);
    config.channel_mult_emb = json.integer_or("channel_mult_emb", 4, 1, 64);
    config.patch_size = json.integer_or("patch_size", 1, 1, 64);
    config.augment_dim = json.integer_or("augment_dim", 0, 0, 4096);
    if (config.channel_mult.empty() || config.channel_mult.size() > 10) {
        core::fail("{}: channel_mult needs 1 to 10 entries, one per level", json.where());
    }
    check(config, json.where());

    return unet_network("adm_unet", config, adm_unet, adm_unet_bottleneck, json.where());
}

}  // namespace atelier::networks
