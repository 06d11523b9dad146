#pragma once

#include "atelier/networks/diffusers_network.h"

namespace atelier::networks {

/// A small autoencoder without normalisation and attention (Bohan, TAESD) as in diffusers'
/// AutoencoderTiny, with its tensors' names. Its latents need no encoder's variance.
struct TinyVae {
    enum class Activation { relu, silu, gelu };

    std::int64_t image_channels = 3, latent_channels = 4;
    std::int64_t encoder_width = 64, decoder_width = 64;
    std::vector<std::int64_t> encoder_blocks, decoder_blocks;  // residual blocks at each size
    Activation activation = Activation::relu;

    /// Reads a config.json. Throws core::Error naming file and key, also on unsupported options.
    static TinyVae of(const core::JsonObject& config);

    /// Images [N,image_channels,H,W] in [-1,1] -> latents.
    graph::Value encode(graph::Builder& ops, graph::Value image) const;

    /// Latents [N,latent_channels,h,w] -> images [N,image_channels,h*2^k,w*2^k].
    graph::Value decode(graph::Builder& ops, graph::Value latent) const;

    /// "decode": x -> image; "encode": image -> latent.
    NamedFunctions functions() const;
};

}  // namespace atelier::networks
