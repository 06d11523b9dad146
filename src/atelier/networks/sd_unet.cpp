#include "atelier/networks/sd_unet.h"

#include "atelier/core/error.h"
#include "atelier/networks/diffusers_config.h"

namespace atelier::networks {

namespace {

using ops::Value;

bool attends(const core::JsonObject& config, const std::string& key, const std::string& type, const char* with, const char* without) {
    if (type == with) return true;
    if (type != without) core::fail("{}: \"{}\" names a block of the class \"{}\"; supported are {} and {}", config.where(), key, type.substr(0, 100), with, without);
    return false;
}

/// One evaluation.
class Evaluation {
public:
    Evaluation(const SdUnet& network, ops::TokenOps& tokens, const Value& hidden) : network_(network), tokens_(tokens), ops_(tokens.layers()), hidden_(hidden) {}

    Value run(const Value& x, const Value& t) {
        embed(t);
        Value y = ops_.conv2d(x, "conv_in", {.out_channels = network_.down[0].channels});
        skips_ = {y};
        for (std::size_t i = 0; i < network_.down.size(); ++i) y = down(y, i);
        y = middle(y);
        for (std::size_t i = 0; i < network_.down.size(); ++i) y = up(y, i);
        y = ops_.group_norm(y, "conv_norm_out", {.groups = network_.norm.groups, .eps = network_.norm.eps, .silu = true});
        return ops_.conv2d(y, "conv_out", {.out_channels = network_.out_channels});
    }

private:
    void embed(const Value& t) {
        const std::int64_t width = network_.down[0].channels;
        const Value waves = ops_.sinusoid(t, {.width = width, .endpoint = network_.whole_shift, .sines_first = !network_.cosines_first});
        const Value inner = ops_.silu(ops_.linear(waves, "time_embedding.linear_1", {.out_features = 4 * width}));
        embedding_ = ops_.linear(inner, "time_embedding.linear_2", {.out_features = 4 * width});
    }

    Value resnet(const Value& x, const std::string& block, std::int64_t i, std::int64_t channels) {
        return sd_resnet(ops_, x, embedding_, block + ".resnets." + std::to_string(i), channels, network_.norm);
    }

    Value attend(const Value& x, const Value& to, const std::string& name, std::int64_t heads) {
        const std::int64_t width = ops_.shape(x)[2];
        const auto projected = [&](const Value& from, const char* what) { return ops_.linear(from, name + what, {.out_features = width, .bias = false}); };
        const Value attended = tokens_.token_attention(projected(x, ".to_q"), projected(to, ".to_k"), projected(to, ".to_v"), {.heads = heads});
        return ops_.linear(attended, name + ".to_out.0", {.out_features = width});
    }

    /// Attention to itself, then to the text, then an inner layer four times as wide.
    Value transformer_block(Value x, const std::string& name, std::int64_t heads) {
        constexpr double eps = 1e-5;
        const std::int64_t width = ops_.shape(x)[2];
        const Value own = ops_.layer_norm(x, name + ".norm1", eps);
        x = ops_.add(x, attend(own, own, name + ".attn1", heads));
        x = ops_.add(x, attend(ops_.layer_norm(x, name + ".norm2", eps), hidden_, name + ".attn2", heads));
        const Value inner = tokens_.geglu(ops_.linear(ops_.layer_norm(x, name + ".norm3", eps), name + ".ff.net.0.proj", {.out_features = 8 * width}));
        return ops_.add(x, ops_.linear(inner, name + ".ff.net.2", {.out_features = width}));
    }

    Value transformer(const Value& x, const std::string& block, std::int64_t i, const SdUnet::Block& sizes) {
        const std::string name = block + ".attentions." + std::to_string(i);
        const ops::Shape shape = ops_.shape(x);
        const ops::Convolution pointwise{.out_channels = shape[1], .kernel = 1, .padding = 0};
        const bool linear = network_.linear_projections;
        const Value normed = ops_.group_norm(x, name + ".norm", {.groups = network_.norm.groups, .eps = 1e-6});
        Value y = linear ? ops_.linear(tokens_.tokens(normed), name + ".proj_in", {.out_features = shape[1]})
                         : tokens_.tokens(ops_.conv2d(normed, name + ".proj_in", pointwise));
        for (std::int64_t d = 0; d < sizes.transformers; ++d) {
            y = transformer_block(y, name + ".transformer_blocks." + std::to_string(d), sizes.heads);
        }
        const Value out = linear ? tokens_.image(ops_.linear(y, name + ".proj_out", {.out_features = shape[1]}), shape[2], shape[3])
                                 : ops_.conv2d(tokens_.image(y, shape[2], shape[3]), name + ".proj_out", pointwise);
        return ops_.add(out, x);
    }

    Value down(Value x, std::size_t i) {
        const SdUnet::Block& sizes = network_.down[i];
        const std::string block = "down_blocks." + std::to_string(i);
        for (std::int64_t j = 0; j < sizes.layers; ++j) {
            x = resnet(x, block, j, sizes.channels);
            if (sizes.attends) x = transformer(x, block, j, sizes);
            skips_.push_back(x);
        }
        if (i + 1 == network_.down.size()) return x;
        x = sd_downsample(ops_, x, block + ".downsamplers.0");
        skips_.push_back(x);
        return x;
    }

    Value middle(const Value& x) {
        const SdUnet::Block& sizes = network_.down.back();
        return resnet(transformer(resnet(x, "mid_block", 0, sizes.channels), "mid_block", 0, sizes), "mid_block", 1, sizes.channels);
    }

    Value up(Value x, std::size_t i) {
        const SdUnet::Block& sizes = network_.down[network_.down.size() - 1 - i];
        const std::string block = "up_blocks." + std::to_string(i);
        for (std::int64_t j = 0; j < sizes.layers + 1; ++j) {
            x = resnet(ops_.concat(x, skips_.back()), block, j, sizes.channels);
            skips_.pop_back();
            if (network_.up_attends[i]) x = transformer(x, block, j, sizes);
        }
        return i + 1 == network_.down.size() ? x : sd_upsample(ops_, x, block + ".upsamplers.0");
    }

    const SdUnet& network_;
    ops::TokenOps& tokens_;
    ops::Ops& ops_;
    const Value& hidden_;
    Value embedding_;
    std::vector<Value> skips_;
};

void check_options(const core::JsonObject& config) {
    using nlohmann::json;
    const json off = json::array({false, nullptr}), none = json::array({nullptr});
    require_class(config, "UNet2DConditionModel");
    require_options(config, {{"center_input_sample", off}, {"mid_block_type", {"UNetMidBlock2DCrossAttn"}}, {"only_cross_attention", off}, {"downsample_padding", {1}},
                             {"mid_block_scale_factor", {1}}, {"dropout", {0.0}}, {"act_fn", {"silu", "swish"}}, {"encoder_hid_dim", none}, {"encoder_hid_dim_type", none},
                             {"num_attention_heads", none}, {"dual_cross_attention", off}, {"class_embed_type", none}, {"addition_embed_type", none},
                             {"num_class_embeds", none}, {"resnet_time_scale_shift", {"default"}}, {"resnet_skip_time_act", off}, {"resnet_out_scale_factor", {1.0}},
                             {"time_embedding_type", {"positional"}}, {"time_embedding_dim", none}, {"time_embedding_act_fn", none}, {"timestep_post_act", none},
                             {"time_cond_proj_dim", none}, {"conv_in_kernel", {3}}, {"conv_out_kernel", {3}}, {"attention_type", {"default"}}, {"class_embeddings_concat", off},
                             {"mid_block_only_cross_attention", off}, {"cross_attention_norm", none}, {"reverse_transformer_layers_per_block", none}});
}

}  // namespace

SdUnet SdUnet::of(const core::JsonObject& config) {
    check_options(config);
    SdUnet network;
    network.in_channels = config.integer_or("in_channels", 4, 1, 4096);
    network.out_channels = config.integer_or("out_channels", 4, 1, 4096);
    network.sample_size = config.integer_or("sample_size", 64, 1, 4096);
    network.context_width = config.integer_or("cross_attention_dim", 1280, 1, 65536);
    network.norm = {config.integer_or("norm_num_groups", 32, 1, 4096), config.number_or("norm_eps", 1e-5, 0, 1)};
    network.cosines_first = flag_or(config, "flip_sin_to_cos", true);
    network.whole_shift = config.integer_or("freq_shift", 0, 0, 1) == 1;
    network.linear_projections = flag_or(config, "use_linear_projection", false);
    const auto channels = config.integers("block_out_channels", 1, 65536);
    const std::size_t count = channels.size();
    const auto down = config.texts("down_block_types"), up = config.texts("up_block_types");
    if (count == 0 || count > 8 || down.size() != count || up.size() != count) {
        core::fail("{}: \"down_block_types\", \"up_block_types\" and \"block_out_channels\" must have an entry a block, 1 to 8", config.where());
    }
    const auto layers = integer_or_list(config, "layers_per_block", count, 1, 64);
    const auto heads = integer_or_list(config, "attention_head_dim", count, 1, 4096);  // which diffusers takes for the number of heads
    const auto transformers = config.has("transformer_layers_per_block") ? integer_or_list(config, "transformer_layers_per_block", count, 1, 64)
                                                                         : std::vector<std::int64_t>(count, 1);
    for (std::size_t i = 0; i < count; ++i) {
        const bool with_text = attends(config, "down_block_types", down[i], "CrossAttnDownBlock2D", "DownBlock2D");
        network.up_attends.push_back(attends(config, "up_block_types", up[i], "CrossAttnUpBlock2D", "UpBlock2D"));
        if (channels[i] % network.norm.groups != 0 || channels[i] % heads[i] != 0) {
            core::fail("{}: {} channels are no multiple of \"norm_num_groups\" {} and \"attention_head_dim\" {}", config.where(), channels[i], network.norm.groups, heads[i]);
        }
        network.down.push_back({channels[i], layers[i], heads[i], transformers[i], with_text});
    }
    if (channels[0] % 2 != 0) core::fail("{}: \"block_out_channels\" must begin with an even number", config.where());
    return network;
}

Value SdUnet::forward(ops::TokenOps& tokens, const Value& x, const Value& t, const Value& hidden) const { return Evaluation(*this, tokens, hidden).run(x, t); }

}  // namespace atelier::networks
