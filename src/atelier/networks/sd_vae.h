#pragma once

#include "atelier/networks/diffusers_network.h"
#include "atelier/networks/sd_blocks.h"

namespace atelier::networks {

/// Stable Diffusion's autoencoder (Rombach et al. 2022) as in diffusers' AutoencoderKL, with the
/// newer names of its tensors.
struct SdVae {
    std::int64_t image_channels = 3, latent_channels = 4, layers = 2, sample_size = 512;
    std::vector<std::int64_t> channels;  // from the largest size to the smallest
    SdNorm norm{32, 1e-6};
    double scaling = 0.18215;  // latents as a denoiser reads them are (latent - shift) * scaling
    double shift = 0;
    bool middle_attends = true, quant = true, post_quant = true;

    /// Reads a vae/config.json. Throws core::Error naming file and key, also on unsupported
    /// options.
    static SdVae of(const core::JsonObject& config);

    /// Image pixels per latent pixel along each axis.
    std::int64_t factor() const { return std::int64_t{1} << (channels.size() - 1); }

    /// The shape [channels,height,width] of the image that a latent [latent_channels,h,w] decodes
    /// to.
    std::vector<std::int64_t> image_shape(const std::vector<std::int64_t>& latent) const {
        return {image_channels, latent[1] * factor(), latent[2] * factor()};
    }

    /// Images [N,image_channels,H,W] in [-1,1] -> mean and log variance of latents,
    /// [N,2*latent_channels,H/factor,W/factor], unscaled.
    graph::Value encode(graph::Builder& ops, const graph::Value& image) const;

    /// Latents [N,latent_channels,h,w], unscaled -> images [N,image_channels,h*factor,w*factor].
    graph::Value decode(graph::Builder& ops, const graph::Value& latent) const;

    /// "decode": x -> image; "encode": image -> mean, logvar.
    NamedFunctions functions() const;
};

}  // namespace atelier::networks
