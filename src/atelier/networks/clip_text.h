#pragma once

#include "atelier/core/json_file.h"
#include "atelier/graph/graph_cache.h"

namespace atelier::networks {

/// The text tower of CLIP (Radford et al. 2021) as in transformers' CLIPTextModel, with its
/// tensors' names, or CLIPTextModelWithProjection.
struct ClipText {
    std::int64_t vocabulary, width, layers, heads, hidden, positions = 77, eos = 2;
    double eps = 1e-5;
    bool quick_gelu = true;       // Stable Diffusion 1; 2 uses the exact GELU
    std::int64_t projection = 0;  // width of the projected state of a text; 0: none

    /// Reads a text_encoder/config.json; `architectures` says whether there is a projection. Throws
    /// core::Error naming file and key.
    static ClipText of(const core::JsonObject& config);

    /// `ids` [N,T] int64 -> hidden states after the final layer norm, [N,T,width]. Attention is
    /// causal.
    graph::Value forward(graph::Builder& ops, const graph::Value& ids) const;

    /// What SDXL and Stable Diffusion 3 read: the states before the last layer, [N,T,width], and
    /// the final ones, projected where there is a projection, [N,T,projection].
    struct States {
        graph::Value penultimate, last;
    };
    States states(graph::Builder& ops, const graph::Value& ids) const;

    /// What `forward` has recorded; copies share it.
    std::shared_ptr<graph::GraphCache> graphs = std::make_shared<graph::GraphCache>();
};

}  // namespace atelier::networks
