#include "atelier/networks/clip_text.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/networks/diffusers_config.h"

namespace atelier::networks {

ClipText ClipText::of(const core::JsonObject& config) {
    if (config.text_or("model_type", "clip_text_model") != "clip_text_model") {
        core::fail("{}: \"model_type\" is \"{}\"; only clip_text_model is supported",
                   config.where(), config.text("model_type").substr(0, 100));
    }
    const std::string activation = config.text_or("hidden_act", "quick_gelu");
    if (activation != "quick_gelu" && activation != "gelu") {
        core::fail("{}: \"hidden_act\" is \"{}\"; supported are quick_gelu and gelu",
                   config.where(), activation.substr(0, 100));
    }
    ClipText network{.vocabulary = config.integer_or("vocab_size", 49408, 1, 10'000'000),
                     .width = config.integer_or("hidden_size", 512, 1, 16384),
                     .layers = config.integer_or("num_hidden_layers", 12, 1, 256),
                     .heads = config.integer_or("num_attention_heads", 8, 1, 1024),
                     .hidden = config.integer_or("intermediate_size", 2048, 1, 65536),
                     .positions = config.integer_or("max_position_embeddings", 77, 1, 65536),
                     .eos = config.integer_or("eos_token_id", 49407, 0, 10'000'000),
                     .eps = config.number_or("layer_norm_eps", 1e-5, 0, 1),
                     .quick_gelu = activation == "quick_gelu"};
    if (is_given(config, "architectures") &&
        std::ranges::count(config.texts("architectures"), "CLIPTextModelWithProjection") > 0)
        network.projection = config.integer_or("projection_dim", 512, 1, 16384);
    if (network.width % network.heads != 0)
        core::fail("{}: \"hidden_size\" must be a multiple of \"num_attention_heads\"",
                   config.where());
    return network;
}

ClipText::States ClipText::states(graph::Builder& ops, const graph::Value& ids) const {
    graph::Value penultimate,
        x = ops.embedding(ids, "text_model.embeddings.token_embedding", vocabulary, width);
    x = ops.add_positions(x, "text_model.embeddings.position_embedding", positions);
    for (std::int64_t i = 0; i < layers; ++i) {
        penultimate = x;
        const std::string layer = "text_model.encoder.layers." + std::to_string(i) + ".";
        const graph::Value seen = ops.layer_norm(x, layer + "layer_norm1", eps);
        const auto projected = [&](const char* what) {
            return ops.linear(seen, layer + "self_attn." + what, {.out_features = width});
        };
        const graph::Value attended =
            ops.token_attention(projected("q_proj"), projected("k_proj"), projected("v_proj"),
                                {.heads = heads, .causal = true});
        x = ops.add(x, ops.linear(attended, layer + "self_attn.out_proj", {.out_features = width}));
        const graph::Value inner = ops.linear(ops.layer_norm(x, layer + "layer_norm2", eps),
                                              layer + "mlp.fc1", {.out_features = hidden});
        x = ops.add(x, ops.linear(quick_gelu ? ops.quick_gelu(inner) : ops.gelu(inner),
                                  layer + "mlp.fc2", {.out_features = width}));
    }
    const graph::Value last = ops.layer_norm(x, "text_model.final_layer_norm", eps);
    if (projection == 0) return {penultimate, last};
    return {penultimate,
            ops.linear(last, "text_projection", {.out_features = projection, .bias = false})};
}

graph::Value ClipText::forward(graph::Builder& ops, const graph::Value& ids) const {
    ClipText plain = *this;
    plain.projection = 0;
    return plain.states(ops, ids).last;
}

}  // namespace atelier::networks
