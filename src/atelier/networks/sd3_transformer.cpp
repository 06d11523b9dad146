#include "atelier/networks/sd3_transformer.h"

#include <optional>

#include "atelier/core/error.h"
#include "atelier/networks/diffusers_config.h"
#include "atelier/networks/transformer_blocks.h"

namespace atelier::networks {

namespace {

using graph::Value;

/// Queries, keys and values of one sequence.
struct Projected {
    Value q, k, v;
};

/// One evaluation.
class Sd3Evaluation {
public:
    Sd3Evaluation(const Sd3Transformer& network, graph::Builder& ops)
        : network_(network), ops_(ops) {}

    Value run(Value x, Value t, Value hidden, Value pooled) {
        const graph::Shape shape = ops_.shape(x);
        const std::int64_t height = shape[2] / network_.patch, width = shape[3] / network_.patch;
        image_ = ops_.cropped_positions(
            patches_of_image(ops_, x, "pos_embed.proj", network_.patch, network_.width()),
            "pos_embed.pos_embed", {.side = network_.positions, .height = height, .width = width});
        text_ = linear(hidden, "context_embedder", network_.width());
        constexpr std::int64_t wave_width = 256;
        const std::string name = "time_text_embed.";
        condition_ =
            ops_.silu(ops_.add(embedded(ops_, ops_.sinusoid(t, {.width = wave_width}),
                                        name + "timestep_embedder", network_.width()),
                               embedded(ops_, pooled, name + "text_embedder", network_.width())));
        for (std::int64_t i = 0; i < network_.layers; ++i) block(i);
        const std::int64_t pixels = network_.patch * network_.patch;
        const Value y =
            linear(continuous_norm(image_, "norm_out"), "proj_out", pixels * network_.out_channels);
        return image_of_patches(ops_, y, height, width, network_.patch);
    }

private:
    Value linear(Value x, const std::string& name, std::int64_t features) {
        return ops_.linear(x, name, {.out_features = features});
    }
    Value norm(Value x) { return ops_.layer_norm(x, adaptive_norm_eps); }

    /// The part i of the row that `name` makes of the condition.
    struct Row {
        graph::Builder* ops;
        Value row;
        std::int64_t width;
        Value operator[](std::int64_t i) const { return part_of(*ops, row, i, width); }
    };
    Row row(const std::string& name, std::int64_t parts) {
        return {&ops_, linear(condition_, name + ".linear", parts * network_.width()),
                network_.width()};
    }

    /// diffusers' AdaLayerNormContinuous: the scale comes before the shift.
    Value continuous_norm(Value x, const std::string& name) {
        const Row parts = row(name, 2);
        return modulated(ops_, norm(x), parts[1], parts[0]);
    }

    Value head_norm(Value x, const std::string& name) {
        return network_.qk_norm
                   ? ops_.rms_norm(x, name, {.heads = network_.heads, .eps = adaptive_norm_eps})
                   : x;
    }

    Projected projected(Value x, const std::string& name, bool text) {
        const std::int64_t width = network_.width();
        const std::string norm = name + (text ? ".norm_added_" : ".norm_");
        const auto layer = [&](const char* of_image, const char* of_text) {
            return linear(x, name + (text ? of_text : of_image), width);
        };
        return {head_norm(layer(".to_q", ".add_q_proj"), norm + "q"),
                head_norm(layer(".to_k", ".add_k_proj"), norm + "k"),
                layer(".to_v", ".add_v_proj")};
    }

    Value attended(const Projected& of) {
        return ops_.token_attention(of.q, of.k, of.v, {.heads = network_.heads});
    }

    Value forward_part(Value x, const std::string& name, Value shift, Value scale, Value gate) {
        const Value inner = feed_forward(ops_, modulated(ops_, norm(x), shift, scale), name,
                                         FeedForward::gelu_tanh);
        return ops_.add(x, ops_.multiply(inner, gate));
    }

    /// Image and text attend to both of them, each with layers of its own; in the last block the
    /// text is only attended to.
    void block(std::int64_t i) {
        const std::string name = "transformer_blocks." + std::to_string(i), attn = name + ".attn";
        const bool last = i + 1 == network_.layers, dual = network_.dual.contains(i);
        const std::int64_t width = network_.width(), pixels = ops_.shape(image_)[1];
        const Row own = row(name + ".norm1", dual ? 9 : 6);
        const Value normed = norm(image_);
        const Projected image = projected(modulated(ops_, normed, own[0], own[1]), attn, false);
        std::optional<Row> context;
        if (!last) context = row(name + ".norm1_context", 6);
        const Value seen_text = last ? continuous_norm(text_, name + ".norm1_context")
                                     : modulated(ops_, norm(text_), (*context)[0], (*context)[1]);
        const Projected text = projected(seen_text, attn, true);
        const Value both = attended({ops_.concat(image.q, text.q), ops_.concat(image.k, text.k),
                                     ops_.concat(image.v, text.v)});
        const Value of_image = linear(ops_.slice(both, 0, pixels), attn + ".to_out.0", width);
        image_ = ops_.add(image_, ops_.multiply(of_image, own[2]));
        if (dual) {
            const std::string second = name + ".attn2";
            const Value alone =
                attended(projected(modulated(ops_, normed, own[6], own[7]), second, false));
            image_ =
                ops_.add(image_, ops_.multiply(linear(alone, second + ".to_out.0", width), own[8]));
        }
        image_ = forward_part(image_, name + ".ff", own[3], own[4], own[5]);
        if (last) return;
        const Value of_text =
            linear(ops_.slice(both, pixels, ops_.shape(text_)[1]), attn + ".to_add_out", width);
        text_ = ops_.add(text_, ops_.multiply(of_text, (*context)[2]));
        text_ =
            forward_part(text_, name + ".ff_context", (*context)[3], (*context)[4], (*context)[5]);
    }

    const Sd3Transformer& network_;
    graph::Builder& ops_;
    Value image_, text_, condition_;
};

}  // namespace

Sd3Transformer Sd3Transformer::of(const core::JsonObject& config) {
    require_class(config, "SD3Transformer2DModel");
    require_options(config, {{"qk_norm", nlohmann::json::array({nullptr, "rms_norm"})}});
    Sd3Transformer network;
    network.in_channels = config.integer_or("in_channels", 16, 1, 4096);
    network.out_channels = is_given(config, "out_channels")
                               ? config.integer("out_channels", 1, 4096)
                               : network.in_channels;
    network.sample_size = config.integer_or("sample_size", 128, 1, 4096);
    network.patch = config.integer_or("patch_size", 2, 1, 64);
    network.layers = config.integer_or("num_layers", 18, 1, 256);
    network.heads = config.integer_or("num_attention_heads", 18, 1, 1024);
    network.head_width = config.integer_or("attention_head_dim", 64, 1, 4096);
    network.context_width = config.integer_or("joint_attention_dim", 4096, 1, 65536);
    network.pooled_width = config.integer_or("pooled_projection_dim", 2048, 1, 65536);
    network.positions = config.integer_or("pos_embed_max_size", 96, 1, 4096);
    network.qk_norm = is_given(config, "qk_norm");
    if (is_given(config, "dual_attention_layers")) {
        for (const std::int64_t i : config.integers("dual_attention_layers", 0, network.layers - 1))
            network.dual.insert(i);
    }
    if (config.integer_or("caption_projection_dim", network.width(), 1, 1 << 22) != network.width())
        core::fail(
            "{}: \"caption_projection_dim\" must be \"num_attention_heads\" times "
            "\"attention_head_dim\", {}",
            config.where(), network.width());
    if (network.out_channels != network.in_channels)
        core::fail("{}: a denoiser has as many \"out_channels\" as \"in_channels\"",
                   config.where());
    if (network.sample_size % network.patch != 0)
        core::fail("{}: \"sample_size\" must be a multiple of \"patch_size\"", config.where());
    return network;
}

Value Sd3Transformer::forward(graph::Builder& ops, Value x, Value t, Value hidden,
                              Value pooled) const {
    return Sd3Evaluation(*this, ops).run(x, t, hidden, pooled);
}

NamedFunctions Sd3Transformer::functions() const {
    NamedFunction denoise{
        .inputs = {{"x", {in_channels, -1, -1}},
                   {"t", {}},
                   {"hidden", {-1, context_width}},
                   {"pooled", {pooled_width}}},
        .outputs = {"velocity"},
        .multiple = patch,
        .tables = {{"pos_embed.pos_embed",
                    {.height = positions, .width = positions, .base = sample_size / patch}}}};
    denoise.record = [network = *this](graph::Builder& ops, std::span<const Value> in) {
        return std::vector{network.forward(ops, in[0], in[1], in[2], in[3])};
    };
    return {{"denoise", denoise}};
}

}  // namespace atelier::networks
