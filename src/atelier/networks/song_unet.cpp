#include "atelier/networks/song_unet.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/safetensors.h"
#include "atelier/networks/unet_blocks.h"

namespace atelier::networks {

namespace {

using Encoder = SongUNetConfig::Encoder;
using Decoder = SongUNetConfig::Decoder;

struct SongEncoded {
    graph::Value x, embedding;
    std::vector<graph::Value> skips;
};

bool attends(const SongUNetConfig& config, std::int64_t resolution) {
    return std::ranges::find(config.attention_resolutions, resolution) !=
           config.attention_resolutions.end();
}

graph::Value embed(graph::Builder& ops, const SongUNetConfig& config, const Inputs& inputs) {
    const std::int64_t width = config.model_channels * config.channel_mult_noise,
                       wide = config.model_channels * config.channel_mult_emb;
    const auto linear = [&](const graph::Value& x, const char* name, std::int64_t features,
                            bool bias = true) {
        return ops.linear(x, name,
                          {.out_features = features, .bias = bias, .init = song_style.init});
    };
    graph::Value e =
        config.fourier
            ? ops.fourier(inputs.c_noise, "model.map_noise.freqs", width)
            : ops.sinusoid(inputs.c_noise, {.width = width, .endpoint = true, .sines_first = true});
    if (config.classes > 0) {
        const graph::Value labels =
            ops.scale(*inputs.labels, std::sqrt(static_cast<double>(config.classes)));
        e = ops.add(e, linear(labels, "model.map_label", width));
    }
    if (inputs.augment) e = ops.add(e, linear(*inputs.augment, "model.map_augment", width, false));
    e = ops.silu(linear(e, "model.map_layer0", wide));
    return ops.silu(linear(e, "model.map_layer1", wide));
}

graph::Resample down(const SongUNetConfig& config) {
    return config.smooth ? graph::Resample::smooth_down : graph::Resample::down;
}
graph::Resample up(const SongUNetConfig& config) {
    return config.smooth ? graph::Resample::smooth_up : graph::Resample::up;
}

/// The convolution comes first, on an image that is also padded for the filter.
graph::Value fused_down(graph::Builder& ops, const SongUNetConfig& config, const graph::Value& x,
                        const std::string& name, std::int64_t channels) {
    const graph::Conv2d layer{
        .out_channels = channels, .padding = config.smooth ? 2 : 1, .init = song_style.init};
    return ops.resample(ops.conv2d(x, name, layer),
                        config.smooth ? graph::Resample::smooth_down_valid : graph::Resample::down);
}

/// Adds `aux`, this level's features of the image itself, to the level's first features.
void join_image(graph::Builder& ops, const SongUNetConfig& config, std::int64_t resolution,
                SongEncoded& state, graph::Value& aux) {
    const std::int64_t channels = ops.shape(state.x)[1];
    if (config.encoder == Encoder::skip) {
        aux = ops.resample(aux, down(config));
        const graph::Conv2d pointwise{
            .out_channels = channels, .kernel = 1, .padding = 0, .init = song_style.init};
        state.x =
            ops.add(state.x, ops.conv2d(aux, level_name("enc", resolution, "aux_skip"), pointwise));
    } else if (config.encoder == Encoder::residual) {
        const graph::Value image =
            fused_down(ops, config, aux, level_name("enc", resolution, "aux_residual"), channels);
        aux = state.x = ops.scale(ops.add(state.x, image), std::sqrt(0.5));
    }
}

SongEncoded encode(graph::Builder& ops, const SongUNetConfig& config, const Inputs& inputs) {
    SongEncoded state{inputs.x, embed(ops, config, inputs), {}};
    graph::Value aux = inputs.x;
    for (std::size_t level = 0; level < config.channel_mult.size(); ++level) {
        const std::int64_t resolution = config.resolution >> level;
        if (level == 0) {
            state.x = ops.conv2d(state.x, level_name("enc", resolution, "conv"),
                                 {.out_channels = config.model_channels, .init = song_style.init});
        } else {
            state.x =
                unet_block(ops, state.x, state.embedding, level_name("enc", resolution, "down"),
                           {.out_channels = ops.shape(state.x)[1],
                            .resample = down(config),
                            .style = song_style});
            join_image(ops, config, resolution, state, aux);
        }
        state.skips.push_back(state.x);
        for (std::int64_t i = 0; i < config.num_blocks; ++i) {
            state.x =
                unet_block(ops, state.x, state.embedding,
                           level_name("enc", resolution, fmt::format("block{}", i)),
                           {.out_channels = config.model_channels * config.channel_mult[level],
                            .attention = attends(config, resolution),
                            .style = song_style});
            state.skips.push_back(state.x);
        }
    }
    return state;
}

void decode_level(graph::Builder& ops, const SongUNetConfig& config, std::size_t level,
                  SongEncoded& state) {
    const std::int64_t resolution = config.resolution >> level, same = ops.shape(state.x)[1];
    const auto block = [&](const std::string& what, const UNetBlock& options) {
        state.x =
            unet_block(ops, state.x, state.embedding, level_name("dec", resolution, what), options);
    };
    if (level + 1 == config.channel_mult.size()) {
        block("in0", {.out_channels = same, .attention = true, .style = song_style});
        block("in1", {.out_channels = same, .style = song_style});
    } else {
        block("up", {.out_channels = same, .resample = up(config), .style = song_style});
    }
    for (std::int64_t i = 0; i <= config.num_blocks; ++i) {
        state.x = ops.concat(state.x, state.skips.back());
        state.skips.pop_back();
        block(fmt::format("block{}", i),
              {.out_channels = config.model_channels * config.channel_mult[level],
               .attention = i == config.num_blocks && attends(config, resolution),
               .style = song_style});
    }
}

/// The image contribution of a level.
graph::Value image_of(graph::Builder& ops, const SongUNetConfig& config, std::size_t level,
                      const graph::Value& x) {
    const std::int64_t resolution = config.resolution >> level;
    const graph::Value h = unet_norm(ops, x, level_name("dec", resolution, "aux_norm"),
                                     {.silu = true, .eps = song_style.eps});
    return ops.conv2d(h, level_name("dec", resolution, "aux_conv"),
                      {.out_channels = config.channels, .init = song_style.last_init});
}

graph::Value decode(graph::Builder& ops, const SongUNetConfig& config, SongEncoded state) {
    graph::Value image;
    for (std::size_t level = config.channel_mult.size(); level-- > 0;) {
        decode_level(ops, config, level, state);
        if (level > 0 && config.decoder != Decoder::skip) continue;
        const graph::Value added = image_of(ops, config, level, state.x);
        image = image.has_value() ? ops.add(added, ops.resample(image, up(config))) : added;
    }
    return image;
}

/// The index of the value of `key` in `known`, 0 where the key is missing. Throws core::Error on an
/// unknown value.
std::size_t choice(const core::JsonObject& json, const std::string& key,
                   const std::vector<std::string>& known) {
    const std::string value = json.text_or(key, known.front());
    const auto found = std::ranges::find(known, value);
    if (found == known.end())
        core::fail("{}: \"{}\" is \"{}\"; known are {}", json.where(), key, value,
                   fmt::join(known, ", "));
    return static_cast<std::size_t>(found - known.begin());
}

bool reads_smooth_filter(const core::JsonObject& json) {
    if (!json.has("resample_filter")) return false;
    const auto filter = json.integers("resample_filter", 0, 1000);
    if (filter == std::vector<std::int64_t>{1, 3, 3, 1}) return true;
    if (filter == std::vector<std::int64_t>{1, 1}) return false;
    core::fail("{}: \"resample_filter\" is {}; known are [1,1] and [1,3,3,1]", json.where(),
               core::to_string(filter));
}

void check(const SongUNetConfig& config, const std::string& where) {
    if (config.channel_mult.empty() || config.channel_mult.size() > 10)
        core::fail("{}: channel_mult needs 1 to 10 entries, one per level", where);
    const auto deepest = static_cast<std::int64_t>(1) << (config.channel_mult.size() - 1);
    if (config.resolution % deepest != 0)
        core::fail("{}: resolution {} must be a multiple of 2^(levels-1) = {}", where,
                   config.resolution, deepest);
    if (config.model_channels * config.channel_mult_noise % 2 != 0)
        core::fail("{}: model_channels must be even", where);
}

SongUNetConfig read_config(const core::JsonObject& json) {
    SongUNetConfig config;
    config.resolution = json.integer("resolution", 1, 4096);
    config.channels = json.integer("channels", 1, 1024);
    config.classes = json.integer_or("classes", config.classes, 0, 1'000'000);
    config.augment_dim = json.integer_or("augment_dim", config.augment_dim, 0, 4096);
    config.model_channels = json.integer("model_channels", 4, 8192);
    config.channel_mult = json.integers("channel_mult", 1, 64);
    config.channel_mult_emb = json.integer_or("channel_mult_emb", config.channel_mult_emb, 1, 64);
    config.channel_mult_noise =
        json.integer_or("channel_mult_noise", config.channel_mult_noise, 1, 64);
    config.num_blocks = json.integer("num_blocks", 1, 64);
    config.attention_resolutions = json.integers("attention_resolutions", 1, 4096);
    config.fourier = choice(json, "embedding_type", {"positional", "fourier"}) == 1;
    config.encoder =
        static_cast<Encoder>(choice(json, "encoder_type", {"standard", "skip", "residual"}));
    config.decoder = static_cast<Decoder>(choice(json, "decoder_type", {"standard", "skip"}));
    config.smooth = reads_smooth_filter(json);
    check(config, json.where());
    return config;
}

}  // namespace

Outputs song_unet(graph::Builder& ops, const SongUNetConfig& config, const Inputs& inputs) {
    SongEncoded encoded = encode(ops, config, inputs);
    const graph::Value bottleneck = encoded.x;
    return {decode(ops, config, std::move(encoded)), bottleneck};
}

graph::Value song_unet_bottleneck(graph::Builder& ops, const SongUNetConfig& config,
                                  const Inputs& inputs) {
    return encode(ops, config, inputs).x;
}

Network build_song_unet(const core::JsonObject& json) {
    const SongUNetConfig config = read_config(json);
    return unet_network("song_unet", config, song_unet, song_unet_bottleneck, json.where());
}

}  // namespace atelier::networks
