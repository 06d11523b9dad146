#pragma once

#include "atelier/networks/diffusers_network.h"
#include "atelier/networks/network.h"
#include "atelier/networks/transformer_blocks.h"

namespace atelier::networks {

/// The diffusion transformer of classes (Peebles and Xie 2023, DiT) as in diffusers'
/// DiTTransformer2DModel, with its tensors' names.
struct Dit {
    std::int64_t in_channels = 4, out_channels = 4, sample_size = 32, patch = 2;
    std::int64_t layers = 28, heads = 16, head_width = 72, classes = 1000;
    FeedForward feed_forward = FeedForward::gelu_tanh;
    bool attention_bias = true, affine = false;  // affine: of the norm before the feed-forward
    double eps = 1e-5;                           // of that norm

    /// Reads a transformer/config.json. Throws core::Error naming file and key, also on unsupported
    /// options.
    static Dit of(const core::JsonObject& config);

    std::int64_t width() const { return heads * head_width; }

    /// `x` [N,in_channels,S,S], `t` [N] time steps, `labels` [N] int64, of which `classes` is none
    /// -> the predicted noise, shaped like x. Of models that learn the variance too, it is left
    /// out. Images may be of another size than sample_size, and must be square.
    graph::Value forward(graph::Builder& ops, graph::Value x, graph::Value t,
                         graph::Value labels) const;

    /// "denoise": x, t, labels -> eps.
    NamedFunctions functions() const;
};

/// "dit" in a config.json: the same transformer, trained here, for images or latents [C,S,S] with
/// or without classes. What a block is conditioned on, the embeddings of noise level and class, is
/// computed once for all blocks, as in the original DiT and SiT (Ma et al. 2024), instead of in
/// each as in diffusers. Modulations and the output begin at zero, so that it begins as the
/// identity. Its bottleneck are the tokens after half of the blocks, as an image
/// [N,hidden,S/patch,S/patch]. Reads `channels`, `resolution`, `classes`, `hidden`, `blocks`,
/// `patch_size` and `heads` (0 or none: one for each 64 of `hidden`). Throws core::Error naming
/// file and key.
Network build_dit(const core::JsonObject& config);

}  // namespace atelier::networks
