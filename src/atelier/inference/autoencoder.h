#pragma once

#include <memory>

#include "atelier/inference/engine.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::inference {

class ComputedNetwork;

/// Converts images in [-1, 1], [N,3,H,W], to pixels, uint8 [N,H,W,3], rounding as diffusers does.
Tensor pixels_of(const Tensor& images);

/// Stable Diffusion's autoencoder. Encoder and decoder are loaded on first use. Not thread-safe.
class Autoencoder {
public:
    /// `folder` is the vae folder of a diffusers directory. Throws core::Error naming the file.
    Autoencoder(const std::filesystem::path& folder, const Engine& engine);
    ~Autoencoder();

    const networks::SdVae& network() const { return network_; }

    struct Moments {
        Tensor mean, logvar;  // of unscaled latents, [N,C,h,w]; logvar clamped to [-30, 20]
    };
    /// `images` [N,3,H,W] in [-1, 1]. Throws core::Error when sizes do not fit.
    Moments encode(const Tensor& images);

    /// Unscaled latents [N,C,h,w] -> images [N,3,H,W] in [-1, 1].
    Tensor decode(const Tensor& latents);

    /// Scaled latents [N,C,h,w], as the U-Net uses them -> pixels, uint8 [N,H,W,3]. As many
    /// are decoded together as images_together says.
    Tensor decode_to_pixels(const Tensor& latents);

private:
    std::filesystem::path folder_;
    Engine engine_;
    networks::SdVae network_;
    std::unique_ptr<ComputedNetwork> encoder_, decoder_;
};

}  // namespace atelier::inference
