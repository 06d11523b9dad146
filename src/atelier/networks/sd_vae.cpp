#include "atelier/networks/sd_vae.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/networks/diffusers_config.h"

namespace atelier::networks {

namespace {

using graph::Value;

Value attention(graph::Builder& ops, const Value& x, const std::string& name, const SdNorm& norm) {
    const graph::Shape shape = ops.shape(x);
    const Value seen = ops.tokens(
        ops.group_norm(x, name + ".group_norm", {.groups = norm.groups, .eps = norm.eps}));
    const auto projected = [&](const Value& from, const char* what) {
        return ops.linear(from, name + what, {.out_features = shape[1]});
    };
    const Value attended = ops.token_attention(projected(seen, ".to_q"), projected(seen, ".to_k"),
                                               projected(seen, ".to_v"), {.heads = 1});
    return ops.add(x, ops.image(projected(attended, ".to_out.0"), shape[2], shape[3]));
}

Value middle(graph::Builder& ops, Value x, const std::string& name, const SdVae& network) {
    const std::int64_t channels = network.channels.back();
    x = sd_resnet(ops, x, std::nullopt, name + ".resnets.0", channels, network.norm);
    if (network.middle_attends) x = attention(ops, x, name + ".attentions.0", network.norm);
    return sd_resnet(ops, x, std::nullopt, name + ".resnets.1", channels, network.norm);
}

Value last(graph::Builder& ops, const Value& x, const std::string& part, const SdVae& network,
           std::int64_t out_channels) {
    const Value y =
        ops.group_norm(x, part + ".conv_norm_out",
                       {.groups = network.norm.groups, .eps = network.norm.eps, .silu = true});
    return ops.conv2d(y, part + ".conv_out", {.out_channels = out_channels});
}

void require_types(const core::JsonObject& config, const std::string& key, const std::string& type,
                   std::size_t count) {
    const auto types = config.texts(key);
    if (types.size() != count)
        core::fail("{}: \"{}\" has {} entries for {} blocks", config.where(), key, types.size(),
                   count);
    const auto other = std::ranges::find_if(types, [&](const std::string& t) { return t != type; });
    if (other != types.end())
        core::fail("{}: \"{}\" names a block of the class \"{}\"; supported is {}", config.where(),
                   key, other->substr(0, 100), type);
}

}  // namespace

SdVae SdVae::of(const core::JsonObject& config) {
    require_class(config, "AutoencoderKL");
    require_options(config, {{"act_fn", {"silu", "swish"}},
                             {"latents_mean", nlohmann::json::array({nullptr})},
                             {"latents_std", nlohmann::json::array({nullptr})}});
    SdVae network;
    network.channels = config.integers("block_out_channels", 1, 65536);
    if (network.channels.empty() || network.channels.size() > 8)
        core::fail("{}: \"block_out_channels\" must have 1 to 8 entries", config.where());
    require_types(config, "down_block_types", "DownEncoderBlock2D", network.channels.size());
    require_types(config, "up_block_types", "UpDecoderBlock2D", network.channels.size());
    network.image_channels = config.integer_or("in_channels", 3, 1, 4096);
    if (config.integer_or("out_channels", 3, 1, 4096) != network.image_channels)
        core::fail("{}: \"out_channels\" and \"in_channels\" must be equal", config.where());
    network.latent_channels = config.integer_or("latent_channels", 4, 1, 4096);
    network.layers = config.integer_or("layers_per_block", 1, 1, 64);
    network.sample_size = config.integer_or("sample_size", 512, 1, 65536);
    network.norm.groups = config.integer_or("norm_num_groups", 32, 1, 4096);
    network.scaling = config.number_or("scaling_factor", 0.18215, 1e-6, 1e6);
    if (is_given(config, "shift_factor")) network.shift = config.number("shift_factor", -1e6, 1e6);
    network.middle_attends = flag_or(config, "mid_block_add_attention", true);
    network.quant = flag_or(config, "use_quant_conv", true);
    network.post_quant = flag_or(config, "use_post_quant_conv", true);
    for (const std::int64_t channels : network.channels) {
        if (channels % network.norm.groups != 0)
            core::fail("{}: {} channels are not a multiple of \"norm_num_groups\" {}",
                       config.where(), channels, network.norm.groups);
    }
    return network;
}

Value SdVae::encode(graph::Builder& ops, const Value& image) const {
    Value x = ops.conv2d(image, "encoder.conv_in", {.out_channels = channels[0]});
    for (std::size_t i = 0; i < channels.size(); ++i) {
        const std::string block = "encoder.down_blocks." + std::to_string(i);
        for (std::int64_t j = 0; j < layers; ++j)
            x = sd_resnet(ops, x, std::nullopt, block + ".resnets." + std::to_string(j),
                          channels[i], norm);
        if (i + 1 == channels.size()) break;
        x = ops.conv2d(ops.pad_corner(x), block + ".downsamplers.0.conv",
                       {.out_channels = channels[i], .stride = 2, .padding = 0});
    }
    x = last(ops, middle(ops, x, "encoder.mid_block", *this), "encoder", *this,
             2 * latent_channels);
    return quant ? ops.conv2d(x, "quant_conv",
                              {.out_channels = 2 * latent_channels, .kernel = 1, .padding = 0})
                 : x;
}

Value SdVae::decode(graph::Builder& ops, const Value& latent) const {
    const Value start =
        post_quant ? ops.conv2d(latent, "post_quant_conv",
                                {.out_channels = latent_channels, .kernel = 1, .padding = 0})
                   : latent;
    Value x = middle(ops, ops.conv2d(start, "decoder.conv_in", {.out_channels = channels.back()}),
                     "decoder.mid_block", *this);
    for (std::size_t i = 0; i < channels.size(); ++i) {
        const std::string block = "decoder.up_blocks." + std::to_string(i);
        const std::int64_t width = channels[channels.size() - 1 - i];
        for (std::int64_t j = 0; j < layers + 1; ++j)
            x = sd_resnet(ops, x, std::nullopt, block + ".resnets." + std::to_string(j), width,
                          norm);
        if (i + 1 < channels.size()) x = sd_upsample(ops, x, block + ".upsamplers.0");
    }
    return last(ops, x, "decoder", *this, image_channels);
}

NamedFunctions SdVae::functions() const {
    NamedFunction decode{.inputs = {{"x", {latent_channels, -1, -1}}}, .outputs = {"image"}},
        encode{.inputs = {{"image", {image_channels, -1, -1}}},
               .outputs = {"mean", "logvar"},
               .multiple = factor()};
    decode.record = [network = *this](graph::Builder& ops, std::span<const Value> in) {
        return std::vector{network.decode(ops, in[0])};
    };
    encode.record = [network = *this](graph::Builder& ops, std::span<const Value> in) {
        const Value moments = network.encode(ops, in[0]);
        return std::vector{ops.slice(moments, 0, network.latent_channels),
                           ops.slice(moments, network.latent_channels, network.latent_channels)};
    };
    return {{"decode", decode}, {"encode", encode}};
}

}  // namespace atelier::networks
