#include "atelier/networks/sd_unet.h"

#include "atelier/core/error.h"
#include "atelier/networks/diffusers_config.h"

namespace atelier::networks {

namespace {

using graph::Value;

bool attends(const core::JsonObject& config, const std::string& key, const std::string& type,
             const char* with, const char* without) {
    if (type == with) return true;
    if (type != without)
        core::fail("{}: \"{}\" names a block of the class \"{}\"; supported are {} and {}",
                   config.where(), key, type.substr(0, 100), with, without);
    return false;
}

/// `inputs` are x and the time embedding.
Value resnet(graph::Builder& ops, std::span<const Value> inputs, const std::string& name,
             std::int64_t channels, const SdNorm& norm) {
    return sd_resnet(ops, inputs[0], inputs[1], name, channels, norm);
}

Value attend(graph::Builder& ops, const Value& x, const Value& to, const std::string& name,
             std::int64_t heads) {
    const std::int64_t width = ops.shape(x)[2];
    const auto projected = [&](const Value& from, const char* what) {
        return ops.linear(from, name + what, {.out_features = width, .bias = false});
    };
    const Value attended = ops.token_attention(projected(x, ".to_q"), projected(to, ".to_k"),
                                               projected(to, ".to_v"), {.heads = heads});
    return ops.linear(attended, name + ".to_out.0", {.out_features = width});
}

/// Self-attention, cross-attention to the text, then a feed-forward layer four times as wide.
Value transformer_block(graph::Builder& ops, Value x, const Value& hidden, const std::string& name,
                        std::int64_t heads) {
    constexpr double eps = 1e-5;
    const std::int64_t width = ops.shape(x)[2];
    const Value own = ops.layer_norm(x, name + ".norm1", eps);
    x = ops.add(x, attend(ops, own, own, name + ".attn1", heads));
    x = ops.add(
        x, attend(ops, ops.layer_norm(x, name + ".norm2", eps), hidden, name + ".attn2", heads));
    const Value inner = ops.geglu(ops.linear(ops.layer_norm(x, name + ".norm3", eps),
                                             name + ".ff.net.0.proj", {.out_features = 8 * width}));
    return ops.add(x, ops.linear(inner, name + ".ff.net.2", {.out_features = width}));
}

/// `inputs` are x and the text states.
Value transformer(graph::Builder& ops, std::span<const Value> inputs, const std::string& name,
                  const SdUnet& network, const SdUnet::Block& sizes) {
    const Value& x = inputs[0];
    const graph::Shape shape = ops.shape(x);
    const graph::Conv2d pointwise{.out_channels = shape[1], .kernel = 1, .padding = 0};
    const bool linear = network.linear_projections;
    const Value normed =
        ops.group_norm(x, name + ".norm", {.groups = network.norm.groups, .eps = 1e-6});
    Value y = linear ? ops.linear(ops.tokens(normed), name + ".proj_in", {.out_features = shape[1]})
                     : ops.tokens(ops.conv2d(normed, name + ".proj_in", pointwise));
    for (std::int64_t d = 0; d < sizes.transformers; ++d) {
        y = transformer_block(ops, y, inputs[1], name + ".transformer_blocks." + std::to_string(d),
                              sizes.heads);
    }
    const Value out =
        linear ? ops.image(ops.linear(y, name + ".proj_out", {.out_features = shape[1]}), shape[2],
                           shape[3])
               : ops.conv2d(ops.image(y, shape[2], shape[3]), name + ".proj_out", pointwise);
    return ops.add(out, x);
}

/// One evaluation. Residual blocks and transformers are Builder::block, so that they may be
/// recomputed.
class Evaluation {
public:
    Evaluation(const SdUnet& network, graph::Builder& ops, const Value& hidden)
        : network_(network), ops_(ops), hidden_(hidden) {}

    /// The encoder and the middle block; collects the skips for the decoder.
    Value encode(const Value& x, const Value& t, const std::optional<SdUnet::Added>& added = {}) {
        embed(t);
        if (added) embed(*added);
        Value y = ops_.conv2d(x, "conv_in", {.out_channels = network_.down[0].channels});
        skips_ = {y};
        for (std::size_t i = 0; i < network_.down.size(); ++i) y = down(y, i);
        return middle(y);
    }

    Value decode(Value y) {
        for (std::size_t i = 0; i < network_.down.size(); ++i) y = up(y, i);
        y = ops_.group_norm(
            y, "conv_norm_out",
            {.groups = network_.norm.groups, .eps = network_.norm.eps, .silu = true});
        return ops_.conv2d(y, "conv_out", {.out_channels = network_.out_channels});
    }

private:
    void embed(const Value& t) {
        const std::int64_t width = network_.down[0].channels;
        const Value waves = ops_.sinusoid(t, {.width = width,
                                              .endpoint = network_.freq_shift,
                                              .sines_first = !network_.cosines_first});
        const Value inner =
            ops_.silu(ops_.linear(waves, "time_embedding.linear_1", {.out_features = 4 * width}));
        embedding_ = ops_.linear(inner, "time_embedding.linear_2", {.out_features = 4 * width});
    }

    void embed(const SdUnet::Added& added) {
        const std::int64_t width = 4 * network_.down[0].channels;
        const Value numbers =
            ops_.sinusoid(added.time_ids, {.width = network_.addition->number_width,
                                           .endpoint = network_.freq_shift,
                                           .sines_first = !network_.cosines_first});
        const Value inner = ops_.silu(ops_.linear(
            ops_.concat(added.pooled, numbers), "add_embedding.linear_1", {.out_features = width}));
        embedding_ = ops_.add(
            embedding_, ops_.linear(inner, "add_embedding.linear_2", {.out_features = width}));
    }

    Value residual(const Value& x, const std::string& block, std::int64_t i,
                   std::int64_t channels) {
        const std::string name = block + ".resnets." + std::to_string(i);
        const Value inputs[]{x, embedding_};
        return ops_.block(inputs, [name, channels, norm = network_.norm](
                                      graph::Builder& ops, std::span<const Value> in) {
            return resnet(ops, in, name, channels, norm);
        });
    }

    Value attending(const Value& x, const std::string& block, std::int64_t i,
                    const SdUnet::Block& sizes) {
        const std::string name = block + ".attentions." + std::to_string(i);
        const Value inputs[]{x, hidden_};
        return ops_.block(inputs, [name, sizes, network = network_](graph::Builder& ops,
                                                                    std::span<const Value> in) {
            return transformer(ops, in, name, network, sizes);
        });
    }

    Value down(Value x, std::size_t i) {
        const SdUnet::Block& sizes = network_.down[i];
        const std::string block = "down_blocks." + std::to_string(i);
        for (std::int64_t j = 0; j < sizes.layers; ++j) {
            x = residual(x, block, j, sizes.channels);
            if (sizes.attends) x = attending(x, block, j, sizes);
            skips_.push_back(x);
        }
        if (i + 1 == network_.down.size()) return x;
        x = sd_downsample(ops_, x, block + ".downsamplers.0");
        skips_.push_back(x);
        return x;
    }

    Value middle(const Value& x) {
        const SdUnet::Block& sizes = network_.down.back();
        return residual(
            attending(residual(x, "mid_block", 0, sizes.channels), "mid_block", 0, sizes),
            "mid_block", 1, sizes.channels);
    }

    Value up(Value x, std::size_t i) {
        const SdUnet::Block& sizes = network_.down[network_.down.size() - 1 - i];
        const std::string block = "up_blocks." + std::to_string(i);
        for (std::int64_t j = 0; j < sizes.layers + 1; ++j) {
            x = residual(ops_.concat(x, skips_.back()), block, j, sizes.channels);
            skips_.pop_back();
            if (network_.up_attends[i]) x = attending(x, block, j, sizes);
        }
        return i + 1 == network_.down.size() ? x : sd_upsample(ops_, x, block + ".upsamplers.0");
    }

    const SdUnet& network_;
    graph::Builder& ops_;
    const Value& hidden_;
    Value embedding_;
    std::vector<Value> skips_;
};

void check_options(const core::JsonObject& config) {
    using nlohmann::json;
    const json off = json::array({false, nullptr}), none = json::array({nullptr});
    require_class(config, "UNet2DConditionModel");
    require_options(config, {{"center_input_sample", off},
                             {"mid_block_type", {"UNetMidBlock2DCrossAttn"}},
                             {"only_cross_attention", off},
                             {"downsample_padding", {1}},
                             {"mid_block_scale_factor", {1}},
                             {"dropout", {0.0}},
                             {"act_fn", {"silu", "swish"}},
                             {"encoder_hid_dim", none},
                             {"encoder_hid_dim_type", none},
                             {"num_attention_heads", none},
                             {"dual_cross_attention", off},
                             {"class_embed_type", none},
                             {"addition_embed_type", json::array({nullptr, "text_time"})},
                             {"num_class_embeds", none},
                             {"resnet_time_scale_shift", {"default"}},
                             {"resnet_skip_time_act", off},
                             {"resnet_out_scale_factor", {1.0}},
                             {"time_embedding_type", {"positional"}},
                             {"time_embedding_dim", none},
                             {"time_embedding_act_fn", none},
                             {"timestep_post_act", none},
                             {"time_cond_proj_dim", none},
                             {"conv_in_kernel", {3}},
                             {"conv_out_kernel", {3}},
                             {"attention_type", {"default"}},
                             {"class_embeddings_concat", off},
                             {"mid_block_only_cross_attention", off},
                             {"cross_attention_norm", none},
                             {"reverse_transformer_layers_per_block", none}});
}

std::optional<SdUnet::Addition> read_addition(const core::JsonObject& config) {
    if (!is_given(config, "addition_embed_type")) return std::nullopt;
    SdUnet::Addition addition;
    addition.number_width = config.integer("addition_time_embed_dim", 2, 4096);
    addition.pooled_width = config.integer("projection_class_embeddings_input_dim", 1, 1 << 20) -
                            SdUnet::Addition::numbers * addition.number_width;
    if (addition.number_width % 2 != 0 || addition.pooled_width < 1)
        core::fail(
            "{}: \"projection_class_embeddings_input_dim\" must be the width of a pooled text and "
            "{} times \"addition_time_embed_dim\", which must be even; SDXL's refiner is not "
            "supported",
            config.where(), SdUnet::Addition::numbers);
    return addition;
}

}  // namespace

SdUnet SdUnet::of(const core::JsonObject& config) {
    check_options(config);
    SdUnet network;
    network.in_channels = config.integer_or("in_channels", 4, 1, 4096);
    network.out_channels = config.integer_or("out_channels", 4, 1, 4096);
    network.sample_size = config.integer_or("sample_size", 64, 1, 4096);
    network.context_width = config.integer_or("cross_attention_dim", 1280, 1, 65536);
    network.norm = {config.integer_or("norm_num_groups", 32, 1, 4096),
                    config.number_or("norm_eps", 1e-5, 0, 1)};
    network.cosines_first = flag_or(config, "flip_sin_to_cos", true);
    network.freq_shift = config.integer_or("freq_shift", 0, 0, 1) == 1;
    network.linear_projections = flag_or(config, "use_linear_projection", false);
    network.addition = read_addition(config);
    const auto channels = config.integers("block_out_channels", 1, 65536);
    const std::size_t count = channels.size();
    const auto down = config.texts("down_block_types"), up = config.texts("up_block_types");
    if (count == 0 || count > 8 || down.size() != count || up.size() != count) {
        core::fail(
            "{}: \"down_block_types\", \"up_block_types\" and \"block_out_channels\" must have one "
            "entry per block, 1 to 8",
            config.where());
    }
    const auto layers = integer_or_list(config, "layers_per_block", count, 1, 64);
    const auto heads = integer_or_list(config, "attention_head_dim", count, 1,
                                       4096);  // which diffusers uses as the number of heads
    const auto transformers =
        config.has("transformer_layers_per_block")
            ? integer_or_list(config, "transformer_layers_per_block", count, 1, 64)
            : std::vector<std::int64_t>(count, 1);
    for (std::size_t i = 0; i < count; ++i) {
        const bool with_text =
            attends(config, "down_block_types", down[i], "CrossAttnDownBlock2D", "DownBlock2D");
        network.up_attends.push_back(
            attends(config, "up_block_types", up[i], "CrossAttnUpBlock2D", "UpBlock2D"));
        if (channels[i] % network.norm.groups != 0 || channels[i] % heads[i] != 0) {
            core::fail(
                "{}: {} channels are not a multiple of \"norm_num_groups\" {} and "
                "\"attention_head_dim\" {}",
                config.where(), channels[i], network.norm.groups, heads[i]);
        }
        network.down.push_back({channels[i], layers[i], heads[i], transformers[i], with_text});
    }
    if (channels[0] % 2 != 0)
        core::fail("{}: \"block_out_channels\" must begin with an even number", config.where());
    return network;
}

SdUnet::Output SdUnet::forward(graph::Builder& ops, const Value& x, const Value& t,
                               const Value& hidden, const std::optional<Added>& added) const {
    Evaluation evaluation(*this, ops, hidden);
    const Value middle = evaluation.encode(x, t, added);
    return {evaluation.decode(middle), middle};
}

Value SdUnet::encode(graph::Builder& ops, const Value& x, const Value& t,
                     const Value& hidden) const {
    return Evaluation(*this, ops, hidden).encode(x, t);
}

NamedFunctions SdUnet::functions() const {
    NamedFunction denoise{
        .inputs = {{"x", {in_channels, -1, -1}}, {"t", {}}, {"hidden", {-1, context_width}}},
        .outputs = {"eps"},
        .multiple = factor()};
    if (addition) {
        denoise.inputs.push_back({"pooled", {addition->pooled_width}});
        denoise.inputs.push_back({"time_ids", {Addition::numbers}});
    }
    denoise.record = [network = *this](graph::Builder& ops, std::span<const Value> in) {
        std::optional<Added> added;
        if (network.addition) added = Added{in[3], in[4]};
        return std::vector{network.forward(ops, in[0], in[1], in[2], added).predicted};
    };
    return {{"denoise", denoise}};
}

Network build_sd_unet(const core::JsonObject& config) {
    constexpr std::int64_t tokens_of_clip = 77;
    const core::JsonObject own = config.object("unet");
    const SdUnet unet = SdUnet::of(own);
    if (unet.addition)
        core::fail("{}: is the U-Net of SDXL; only those of Stable Diffusion 1 and 2 are distilled",
                   own.where());
    if (unet.in_channels != unet.out_channels)
        core::fail("{}: a denoiser has as many \"out_channels\" as \"in_channels\"", own.where());
    if (unet.sample_size % unet.factor() != 0)
        core::fail("{}: \"sample_size\" must be a multiple of {}", own.where(), unet.factor());
    Network network;
    network.architecture = "sd_unet";
    network.data_shape = {unet.in_channels, unet.sample_size, unet.sample_size};
    network.label_dim = unet.context_width;
    network.tokens = config.integer_or("tokens", tokens_of_clip, 1, 65536);
    network.forward = [unet](graph::Builder& ops, const Inputs& in) {
        const SdUnet::Output seen = unet.forward(ops, in.x, in.c_noise, *in.labels);
        return Outputs{seen.predicted, seen.middle};
    };
    network.encode = [unet](graph::Builder& ops, const Inputs& in) {
        return unet.encode(ops, in.x, in.c_noise, *in.labels);
    };
    return network;
}

nlohmann::json describe_sd_unet(const nlohmann::json& values, const graph::Shape& sample,
                                std::int64_t label_dim) {
    std::vector<std::int64_t> channels;
    for (const auto& factor : values.at("channel_mult"))
        channels.push_back(factor.get<std::int64_t>() *
                           values.at("model_channels").get<std::int64_t>());
    std::vector<std::string> down(channels.size(), "CrossAttnDownBlock2D"),
        up(channels.size(), "CrossAttnUpBlock2D");
    down.back() = "DownBlock2D", up.front() = "UpBlock2D";
    return {{"condition", "text"},
            {"preconditioning", "ddpm"},
            {"scheduler",
             {{"beta_schedule", "scaled_linear"}, {"beta_start", 0.00085}, {"beta_end", 0.012}}},
            {"unet",
             {{"_class_name", "UNet2DConditionModel"},
              {"sample_size", sample.at(1)},
              {"in_channels", sample.at(0)},
              {"out_channels", sample.at(0)},
              {"block_out_channels", channels},
              {"layers_per_block", values.at("num_blocks")},
              {"attention_head_dim", 8},
              {"cross_attention_dim", label_dim},
              {"down_block_types", down},
              {"up_block_types", up}}}};
}

namespace {

/// The channels of each level, not empty.
std::vector<std::int64_t> channels_of(const core::JsonObject& config) {
    constexpr std::int64_t most_channels = 65536;
    const core::JsonObject own = config.object("unet");
    std::vector<std::int64_t> channels = own.integers("block_out_channels", 1, most_channels);
    if (channels.empty()) core::fail("{}: \"block_out_channels\" is empty", own.where());
    return channels;
}

}  // namespace

std::int64_t width_of_sd_unet(const core::JsonObject& config) { return channels_of(config)[0]; }

nlohmann::json resized_sd_unet(nlohmann::json config, const Sizes& sizes,
                               const std::string& where) {
    const auto before = channels_of(core::JsonObject(config, where));
    const std::int64_t width = sizes.width.value_or(before[0]);
    std::vector<std::int64_t> channels;
    for (const std::int64_t factor : sizes.levels) channels.push_back(factor * width);
    if (channels.empty()) {
        for (const std::int64_t each : before) channels.push_back(each * width / before[0]);
    }
    if (channels.size() != before.size())
        throw core::UsageError(
            fmt::format("students.channel_mult has {} entries, the teacher's U-Net {} levels",
                        channels.size(), before.size()));
    nlohmann::json& unet = config["unet"];
    unet["block_out_channels"] = channels;
    if (sizes.depth) unet["layers_per_block"] = *sizes.depth;
    return config;
}

}  // namespace atelier::networks
