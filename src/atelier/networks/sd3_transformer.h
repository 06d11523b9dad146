#pragma once

#include <set>

#include "atelier/networks/diffusers_network.h"

namespace atelier::networks {

/// The transformer of Stable Diffusion 3 and 3.5 (Esser et al. 2024, MMDiT) as in diffusers'
/// SD3Transformer2DModel, with its tensors' names.
struct Sd3Transformer {
    std::int64_t in_channels = 16, out_channels = 16, sample_size = 128, patch = 2;
    std::int64_t layers = 18, heads = 18, head_width = 64;
    std::int64_t context_width = 4096, pooled_width = 2048;
    std::int64_t positions = 96;  // rows and columns of the table of positions
    std::set<std::int64_t> dual;  // blocks in which the image also attends to itself alone
    bool qk_norm = false;

    /// Reads a transformer/config.json. Throws core::Error naming file and key, also on unsupported
    /// options.
    static Sd3Transformer of(const core::JsonObject& config);

    std::int64_t width() const { return heads * head_width; }

    /// `x` [N,in_channels,H,W], `t` [N] from 0 to 1000, `hidden` [N,T,context_width] text states,
    /// `pooled` [N,pooled_width] -> the predicted velocity, [N,out_channels,H,W]. H and W are
    /// multiples of patch, at most patch * positions.
    graph::Value forward(graph::Builder& ops, graph::Value x, graph::Value t, graph::Value hidden,
                         graph::Value pooled) const;

    /// "denoise": x, t, hidden, pooled -> velocity.
    NamedFunctions functions() const;
};

}  // namespace atelier::networks
