#pragma once

#include <filesystem>
#include <memory>

#include "atelier/data/sample_spec.h"
#include "atelier/inference/engine.h"

namespace atelier::inference {

/// Turns samples in model space into what a user gets. Thread-safe.
class Decoder {
public:
    virtual ~Decoder() = default;

    /// [N, shape...] -> images uint8 [N,H,W,C], or points float32 [N,D].
    virtual Tensor decode(const Tensor& samples) = 0;
    /// Kind and shape of what is decoded: image or points.
    virtual const data::SampleSpec& spec() const = 0;
};

/// For images and points.
std::shared_ptr<Decoder> plain_decoder(const data::SampleSpec& spec);

/// For latents [C,h,w], scaled as the U-Net expects them; `folder` has diffusers' autoencoder,
/// which is read on first use. Throws core::Error naming the file.
std::shared_ptr<Decoder> latent_decoder(const std::filesystem::path& folder,
                                        const std::vector<std::int64_t>& latent_shape,
                                        const Engine& engine);

}  // namespace atelier::inference
