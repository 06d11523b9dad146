#include "atelier/networks/dit.h"

#include <cmath>

#include "atelier/core/error.h"
#include "atelier/networks/diffusers_config.h"

namespace atelier::networks {

namespace {

using graph::Value;

constexpr std::int64_t wave_width = 256;  // of the sinusoid of the noise level

Value dit_attention(graph::Builder& ops, const Value& x, const std::string& name,
                    const Dit& network) {
    const auto projected = [&](const char* what) {
        return ops.linear(x, name + what,
                          {.out_features = network.width(), .bias = network.attention_bias});
    };
    const Value attended = ops.token_attention(projected(".to_q"), projected(".to_k"),
                                               projected(".to_v"), {.heads = network.heads});
    return ops.linear(attended, name + ".to_out.0", {.out_features = network.width()});
}

/// `inputs` are the tokens and the block's row of six parts: shift, scale and gate of the
/// attention, then of the feed-forward layer.
Value dit_block(graph::Builder& ops, std::span<const Value> inputs, const std::string& name,
                const Dit& network) {
    const auto part = [&](std::int64_t i) { return part_of(ops, inputs[1], i, network.width()); };
    Value x = inputs[0];
    const Value seen = modulated(ops, ops.layer_norm(x, adaptive_norm_eps), part(0), part(1));
    x = ops.add(x, ops.multiply(dit_attention(ops, seen, name + ".attn1", network), part(2)));
    const Value norm = network.affine ? ops.layer_norm(x, name + ".norm3", network.eps)
                                      : ops.layer_norm(x, network.eps);
    const Value inner = feed_forward(ops, modulated(ops, norm, part(3), part(4)), name + ".ff",
                                     network.feed_forward);
    return ops.add(x, ops.multiply(inner, part(5)));
}

FeedForward feed_forward_of(const core::JsonObject& config) {
    const std::string name = config.text_or("activation_fn", "gelu-approximate");
    if (name == "gelu-approximate") return FeedForward::gelu_tanh;
    if (name == "gelu") return FeedForward::gelu;
    if (name == "geglu") return FeedForward::geglu;
    core::fail("{}: \"activation_fn\" is \"{}\"; supported are gelu-approximate, gelu and geglu",
               config.where(), name.substr(0, 100));
}

void check_dit_options(const core::JsonObject& config) {
    using nlohmann::json;
    const json off = json::array({false, nullptr}), none = json::array({nullptr});
    require_options(config, {{"norm_type", {"ada_norm_zero"}},
                             {"cross_attention_dim", none},
                             {"num_vector_embeds", none},
                             {"double_self_attention", off},
                             {"only_cross_attention", off},
                             {"caption_channels", none},
                             {"interpolation_scale", json::array({nullptr, 1})},
                             {"attention_type", {"default"}}});
}

}  // namespace

Dit Dit::of(const core::JsonObject& config) {
    if (config.text_or("_class_name", "") != "Transformer2DModel")
        require_class(config, "DiTTransformer2DModel");
    check_dit_options(config);
    Dit network;
    network.in_channels = config.integer_or("in_channels", 4, 1, 4096);
    network.out_channels = is_given(config, "out_channels")
                               ? config.integer("out_channels", 1, 8192)
                               : network.in_channels;
    network.sample_size = config.integer_or("sample_size", 32, 1, 4096);
    network.patch = config.integer_or("patch_size", 2, 1, 64);
    network.layers = config.integer_or("num_layers", 28, 1, 256);
    network.heads = config.integer_or("num_attention_heads", 16, 1, 1024);
    network.head_width = config.integer_or("attention_head_dim", 72, 1, 4096);
    network.classes = config.integer_or("num_embeds_ada_norm", 1000, 1, 1'000'000);
    network.feed_forward = feed_forward_of(config);
    network.attention_bias = flag_or(config, "attention_bias", true);
    network.affine = flag_or(config, "norm_elementwise_affine", false);
    network.eps = config.number_or("norm_eps", 1e-5, 0, 1);
    if (network.width() % 4 != 0)
        core::fail(
            "{}: \"num_attention_heads\" times \"attention_head_dim\" must be a multiple of 4",
            config.where());
    if (network.sample_size % network.patch != 0)
        core::fail("{}: \"sample_size\" must be a multiple of \"patch_size\"", config.where());
    if (network.out_channels != network.in_channels &&
        network.out_channels != 2 * network.in_channels)
        core::fail(
            "{}: \"out_channels\" is {}; a denoiser has as many as \"in_channels\", or twice as "
            "many where it learns the variance too",
            config.where(), network.out_channels);
    return network;
}

Value Dit::forward(graph::Builder& ops, Value x, Value t, Value labels) const {
    const graph::Shape shape = ops.shape(x);
    const std::int64_t side = shape[2] / patch;
    if (shape[2] != shape[3])
        core::fail("\"x\" is {}x{}; this transformer draws square images", shape[2], shape[3]);
    Value y = ops.grid_sinusoid(patches_of_image(ops, x, "pos_embed.proj", patch, width()),
                                {.height = side, .width = side, .base = sample_size / patch});
    const Value waves = ops.sinusoid(t, {.width = wave_width, .endpoint = true});
    Value first;  // the condition of the first block is that of the output, too
    for (std::int64_t i = 0; i < layers; ++i) {
        const std::string name = "transformer_blocks." + std::to_string(i), norm = name + ".norm1";
        const Value condition =
            ops.silu(ops.add(embedded(ops, waves, norm + ".emb.timestep_embedder", width()),
                             ops.embedding(labels, norm + ".emb.class_embedder.embedding_table",
                                           classes + 1, width())));
        if (i == 0) first = condition;
        const Value inputs[]{
            y, ops.linear(condition, norm + ".linear", {.out_features = 6 * width()})};
        y = ops.block(inputs,
                      [name, network = *this](graph::Builder& inner, std::span<const Value> in) {
                          return dit_block(inner, in, name, network);
                      });
    }
    const Value last = ops.linear(first, "proj_out_1", {.out_features = 2 * width()});
    y = modulated(ops, ops.layer_norm(y, adaptive_norm_eps), part_of(ops, last, 0, width()),
                  part_of(ops, last, 1, width()));
    y = ops.linear(y, "proj_out_2", {.out_features = patch * patch * out_channels});
    const Value predicted = image_of_patches(ops, y, side, side, patch);
    return out_channels == in_channels ? predicted : ops.slice(predicted, 0, in_channels);
}

NamedFunctions Dit::functions() const {
    NamedFunction denoise{
        .inputs = {{"x", {in_channels, -1, -1}}, {"t", {}}, {"labels", {}, classes + 1}},
        .outputs = {"eps"},
        .multiple = patch};
    denoise.record = [network = *this](graph::Builder& ops, std::span<const Value> in) {
        return std::vector{network.forward(ops, in[0], in[1], in[2])};
    };
    return {{"denoise", denoise}};
}

namespace {

/// A transformer whose blocks share one condition.
struct TrainedDit {
    std::int64_t side, classes, blocks;
    Dit blocks_as;  // widths and layers of its blocks and of its output

    struct State {
        Value tokens, condition;
    };

    State enter(graph::Builder& ops, const Inputs& inputs) const {
        const std::int64_t width = blocks_as.width(), across = side / blocks_as.patch;
        const Value tokens =
            patches_of_image(ops, inputs.x, "model.map_patches", blocks_as.patch, width);
        Value condition =
            embedded(ops, ops.sinusoid(inputs.c_noise, {.width = wave_width, .endpoint = true}),
                     "model.map_noise", width);
        if (classes > 0) {
            // Rows of a table are drawn with a standard deviation of 0.02 in DiT.
            const graph::Init table{graph::Init::Kind::normal,
                                    0.02 * std::sqrt(static_cast<double>(classes))};
            condition = ops.add(condition,
                                ops.linear(*inputs.labels, "model.map_label",
                                           {.out_features = width, .bias = false, .init = table}));
        }
        return {ops.grid_sinusoid(tokens, {.height = across, .width = across, .base = across}),
                ops.silu(condition)};
    }

    void run_block(graph::Builder& ops, State& state, std::int64_t index) const {
        const std::string name = fmt::format("model.block{}", index);
        const Value inputs[]{state.tokens, ops.linear(state.condition, name + ".affine",
                                                      {.out_features = 6 * blocks_as.width(),
                                                       .init = graph::zeros})};
        state.tokens = ops.block(
            inputs, [name, as = blocks_as](graph::Builder& inner, std::span<const Value> in) {
                return dit_block(inner, in, name, as);
            });
    }

    Value bottleneck(graph::Builder& ops, const State& state) const {
        return ops.image(state.tokens, side / blocks_as.patch, side / blocks_as.patch);
    }

    Value leave(graph::Builder& ops, const State& state) const {
        const std::int64_t width = blocks_as.width(), across = side / blocks_as.patch;
        const Value row = ops.linear(state.condition, "model.affine",
                                     {.out_features = 2 * width, .init = graph::zeros});
        const Value tokens = modulated(ops, ops.layer_norm(state.tokens, adaptive_norm_eps),
                                       part_of(ops, row, 0, width), part_of(ops, row, 1, width));
        const Value patches =
            ops.linear(tokens, "model.output",
                       {.out_features = blocks_as.patch * blocks_as.patch * blocks_as.out_channels,
                        .init = graph::zeros});
        return image_of_patches(ops, patches, across, across, blocks_as.patch);
    }

    State first_half(graph::Builder& ops, const Inputs& inputs) const {
        State state = enter(ops, inputs);
        for (std::int64_t i = 0; i < (blocks + 1) / 2; ++i) run_block(ops, state, i);
        return state;
    }
};

}  // namespace

Network build_dit(const core::JsonObject& json) {
    TrainedDit dit{.side = json.integer("resolution", 1, 4096),
                   .classes = json.integer_or("classes", 0, 0, 1'000'000),
                   .blocks = json.integer("blocks", 1, 256),
                   .blocks_as = {}};
    Dit& as = dit.blocks_as;
    const std::int64_t width = json.integer("hidden", 4, 16384);
    as.in_channels = as.out_channels = json.integer("channels", 1, 4096);
    as.patch = json.integer_or("patch_size", 1, 1, 64);
    as.heads = json.integer_or("heads", 0, 0, 1024);
    constexpr std::int64_t usual_head_width = 64;
    if (as.heads == 0) as.heads = std::max<std::int64_t>(1, width / usual_head_width);
    as.head_width = width / as.heads;
    if (width % as.heads != 0 || width % 4 != 0)
        core::fail(
            "{}: \"hidden\" is {}; it must be a multiple of 4 and of the {} heads (\"heads\")",
            json.where(), width, as.heads);
    if (dit.side % as.patch != 0)
        core::fail("{}: \"resolution\" is {}, which is no multiple of \"patch_size\", {}",
                   json.where(), dit.side, as.patch);

    Network network;
    network.architecture = "dit";
    network.data_shape = {as.in_channels, dit.side, dit.side};
    network.label_dim = dit.classes;
    if (dit.classes > 0) network.label_embedding = "model.map_label.weight";
    network.forward = [dit](graph::Builder& ops, const Inputs& inputs) {
        TrainedDit::State state = dit.first_half(ops, inputs);
        const Value bottleneck = dit.bottleneck(ops, state);
        for (std::int64_t i = (dit.blocks + 1) / 2; i < dit.blocks; ++i)
            dit.run_block(ops, state, i);
        return Outputs{dit.leave(ops, state), bottleneck};
    };
    network.encode = [dit](graph::Builder& ops, const Inputs& inputs) {
        return dit.bottleneck(ops, dit.first_half(ops, inputs));
    };
    return network;
}

}  // namespace atelier::networks
