#pragma once

#include <memory>
#include <span>
#include <string>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::inference {

class ComputedNetwork;

/// The networks of a diffusers directory, each loaded on first use. Not thread-safe.
class StableDiffusion {
public:
    StableDiffusion(const std::filesystem::path& path, const Engine& engine);
    ~StableDiffusion();

    const networks::SdUnet& unet() const { return unet_config_; }
    /// The decoder and encoder.
    Autoencoder& autoencoder() { return autoencoder_; }
    const networks::ClipText& text() const { return text_config_; }

    const models::DiffusersDirectory& directory() const { return directory_; }

    /// `x` [N,C,H,W], `t` [N], `hidden` [N,T,D] -> the U-Net's prediction [N,C,H,W], epsilon or v.
    /// Throws core::Error when sizes do not fit.
    Tensor predict(const Tensor& x, const Tensor& t, const Tensor& hidden);

    struct Text {
        Tensor hidden, pooled;  // [N,T,D], and [N,D], the state at the end-of-text token
    };
    /// Runs the text encoder on `ids` [N,T] int64. Throws core::Error on ids out of range or too
    /// many tokens.
    Text read(const Tensor& ids);

    const conditions::ClipTokenizer& tokenizer();
    /// The padded token ids of prompts, [N,77].
    Tensor tokens(std::span<const std::string> prompts);

private:
    models::DiffusersDirectory directory_;
    Engine engine_;
    networks::SdUnet unet_config_;
    networks::ClipText text_config_;
    std::unique_ptr<ComputedNetwork> unet_, text_;
    Autoencoder autoencoder_;
    std::unique_ptr<conditions::ClipTokenizer> tokenizer_;
};

}  // namespace atelier::inference
