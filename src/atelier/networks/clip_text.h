#pragma once

#include "atelier/core/json_file.h"
#include "atelier/graph/graph_cache.h"

namespace atelier::networks {

/// The text tower of CLIP (Radford et al. 2021) as in transformers' CLIPTextModel, with its
/// tensors' names.
struct ClipText {
    std::int64_t vocabulary, width, layers, heads, hidden, positions = 77, eos = 2;
    double eps = 1e-5;
    bool quick_gelu = true;  // Stable Diffusion 1; 2 uses the exact GELU

    /// Reads a text_encoder/config.json. Throws core::Error naming file and key.
    static ClipText of(const core::JsonObject& config);

    /// `ids` [N,T] int64 -> hidden states after the final layer norm, [N,T,width]. Attention is
    /// causal.
    graph::Value forward(graph::Builder& ops, const graph::Value& ids) const;

    /// What `forward` has recorded; copies share it.
    std::shared_ptr<graph::GraphCache> graphs = std::make_shared<graph::GraphCache>();
};

}  // namespace atelier::networks
