#include "atelier/networks/tiny_vae.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/networks/diffusers_config.h"

namespace atelier::networks {

namespace {

using graph::Value;

/// Layers in the order in which diffusers numbers them.
class Layers {
public:
    Layers(graph::Builder& ops, std::string part, Value x, TinyVae::Activation activation)
        : ops_(ops), part_(std::move(part)), x_(x), activation_(activation) {}

    Value result() const { return x_; }

    Layers& conv(const graph::Conv2d& layer) {
        x_ = ops_.conv2d(x_, next(), layer);
        return *this;
    }

    Layers& activate() {
        next();
        x_ = active(x_);
        return *this;
    }

    Layers& up() {
        next();
        x_ = ops_.resample(x_, graph::Resample::up);
        return *this;
    }

    Layers& block() {
        const std::string name = next() + ".conv.";
        const std::int64_t width = ops_.shape(x_)[1];
        const auto layer = [&](Value x, const char* index) {
            return ops_.conv2d(x, name + index, {.out_channels = width});
        };
        const Value inner = layer(active(layer(active(layer(x_, "0")), "2")), "4");
        x_ = ops_.relu(ops_.add(inner, x_));
        return *this;
    }

private:
    std::string next() { return part_ + ".layers." + std::to_string(count_++); }

    Value active(Value x) {
        switch (activation_) {
            case TinyVae::Activation::relu:
                return ops_.relu(x);
            case TinyVae::Activation::silu:
                return ops_.silu(x);
            case TinyVae::Activation::gelu:
                break;
        }
        return ops_.gelu(x);
    }

    graph::Builder& ops_;
    std::string part_;
    Value x_;
    TinyVae::Activation activation_;
    std::int64_t count_ = 0;
};

TinyVae::Activation activation_of(const core::JsonObject& config) {
    const std::string name = config.text_or("act_fn", "relu");
    if (name == "relu") return TinyVae::Activation::relu;
    if (name == "silu" || name == "swish") return TinyVae::Activation::silu;
    if (name == "gelu") return TinyVae::Activation::gelu;
    core::fail("{}: \"act_fn\" is \"{}\"; supported are relu, silu and gelu", config.where(),
               name.substr(0, 100));
}

/// The width of all levels of an encoder or a decoder, and their residual blocks.
std::int64_t read_levels(const core::JsonObject& config, const std::string& part,
                         std::vector<std::int64_t>& blocks) {
    const std::string widths_key = part + "_block_out_channels",
                      blocks_key = "num_" + part + "_blocks";
    const bool decoder = part == "decoder";
    const auto widths = config.has(widths_key) ? config.integers(widths_key, 1, 8192)
                                               : std::vector<std::int64_t>(4, 64);
    blocks = config.has(blocks_key) ? config.integers(blocks_key, 0, 64)
             : decoder              ? std::vector<std::int64_t>{3, 3, 3, 1}
                                    : std::vector<std::int64_t>{1, 3, 3, 3};
    if (widths.empty() || widths.size() > 8 || widths.size() != blocks.size())
        core::fail("{}: \"{}\" and \"{}\" must have one entry per block, 1 to 8", config.where(),
                   widths_key, blocks_key);
    if (std::ranges::adjacent_find(widths, std::ranges::not_equal_to()) != widths.end())
        core::fail("{}: the entries of \"{}\" must be equal", config.where(), widths_key);
    return widths.front();
}

}  // namespace

TinyVae TinyVae::of(const core::JsonObject& config) {
    require_class(config, "AutoencoderTiny");
    require_options(config, {{"upsample_fn", {"nearest"}}, {"upsampling_scaling_factor", {2}}});
    TinyVae network;
    network.image_channels = config.integer_or("in_channels", 3, 1, 4096);
    if (config.integer_or("out_channels", 3, 1, 4096) != network.image_channels)
        core::fail("{}: \"out_channels\" and \"in_channels\" must be equal", config.where());
    network.latent_channels = config.integer_or("latent_channels", 4, 1, 4096);
    network.encoder_width = read_levels(config, "encoder", network.encoder_blocks);
    network.decoder_width = read_levels(config, "decoder", network.decoder_blocks);
    network.activation = activation_of(config);
    return network;
}

Value TinyVae::encode(graph::Builder& ops, Value image) const {
    Layers layers(ops, "encoder", ops.scale(image, 0.5, 0.5), activation);
    for (std::size_t i = 0; i < encoder_blocks.size(); ++i) {
        if (i == 0) layers.conv({.out_channels = encoder_width});
        else layers.conv({.out_channels = encoder_width, .stride = 2, .bias = false});
        for (std::int64_t j = 0; j < encoder_blocks[i]; ++j) layers.block();
    }
    return layers.conv({.out_channels = latent_channels}).result();
}

Value TinyVae::decode(graph::Builder& ops, Value latent) const {
    constexpr double limit = 3;
    const Value limited = ops.scale(ops.tanh(ops.scale(latent, 1 / limit)), limit);
    Layers layers(ops, "decoder", limited, activation);
    layers.conv({.out_channels = decoder_width}).activate();
    for (std::size_t i = 0; i < decoder_blocks.size(); ++i) {
        const bool last = i + 1 == decoder_blocks.size();
        for (std::int64_t j = 0; j < decoder_blocks[i]; ++j) layers.block();
        if (!last) layers.up();
        layers.conv({.out_channels = last ? image_channels : decoder_width, .bias = last});
    }
    return ops.scale(layers.result(), 2, -1);
}

NamedFunctions TinyVae::functions() const {
    NamedFunction decode{.inputs = {{"x", {latent_channels, -1, -1}}}, .outputs = {"image"}},
        encode{.inputs = {{"image", {image_channels, -1, -1}}}, .outputs = {"latent"}};
    decode.record = [network = *this](graph::Builder& ops, std::span<const Value> in) {
        return std::vector{network.decode(ops, in[0])};
    };
    encode.record = [network = *this](graph::Builder& ops, std::span<const Value> in) {
        return std::vector{network.encode(ops, in[0])};
    };
    return {{"decode", decode}, {"encode", encode}};
}

}  // namespace atelier::networks
