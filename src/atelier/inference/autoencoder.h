#pragma once

#include <memory>

#include "atelier/inference/engine.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::inference {

class ComputedNetwork;

/// Images in +-1, [N,3,H,W], as pixels, uint8 [N,H,W,3].
Tensor pixels_of(const Tensor& images);

/// Stable Diffusion's autoencoder, its halves read when they are first asked for. One thread at a time.
class Autoencoder {
public:
    /// `folder` is a diffusers directory's vae. Throws core::Error naming the file.
    Autoencoder(const std::filesystem::path& folder, const Engine& engine);
    ~Autoencoder();

    const networks::SdVae& network() const { return network_; }

    struct Moments {
        Tensor mean, logvar;  // of unscaled latents, [N,C,h,w]; logvar within -30..20
    };
    /// Images [N,3,H,W] in +-1. Throws core::Error when sizes do not fit.
    Moments encode(const Tensor& images);

    /// Latents [N,C,h,w], unscaled -> images in +-1.
    Tensor decode(const Tensor& latents);

    /// Latents [N,C,h,w] as the U-Net knows them -> pixels, uint8 [N,H,W,3]; decoded one by one.
    Tensor pictures(const Tensor& latents);

private:
    std::filesystem::path folder_;
    Engine engine_;
    networks::SdVae network_;
    std::unique_ptr<ComputedNetwork> encoder_, decoder_;
};

}  // namespace atelier::inference
