#pragma once

#include <mutex>

#include "atelier/inference/sampler.h"
#include "atelier/inference/text_to_image.h"

namespace atelier::inference {

/// Classifier-free guidance of a diffusers directory (Ho and Salimans 2022).
struct TextGuidance {
    double scale = 7.5;      // up to 1: none
    std::string negative{};  // the negative prompt

    bool guides() const { return scale > 1; }
};

/// Encodes prompts with the text encoder of a diffusers directory, which is loaded on first use.
/// Rows are [N,P,T,D]: the states of the prompt's tokens, after those of the negative prompt if
/// there is guidance.
class DiffusersConditioner final : public Conditioner {
public:
    DiffusersConditioner(const std::filesystem::path& path, const Engine& engine,
                         const TextGuidance& guidance);

    Conditioning encode(std::span<const Condition> conditions) const override;
    const conditions::ClipTokenizer* tokenizer() const override { return &model_.tokenizer(); }

private:
    mutable std::mutex busy_;
    mutable StableDiffusion model_;
    TextGuidance guidance_;
};

/// The U-Net of a diffusers directory, loaded on first use, and a sampler of its time steps.
/// Samples are latents of `shape` [C,h,w], drawn one by one.
class DiffusersSampler final : public Sampler {
public:
    DiffusersSampler(const std::filesystem::path& path, const Engine& engine,
                     const Sampling& sampling, const TextGuidance& guidance,
                     std::vector<std::int64_t> shape);

    Tensor draw(std::span<const SampleRequest> requests, const Conditioning& conditioning,
                const OnEvaluation& on_evaluation) const override;
    Tensor evaluate(const Tensor& z, const Conditioning& conditioning) const override;
    const std::string& hash() const override;
    std::int64_t parameter_count() const override;

private:
    /// `x` [N,C,h,w] at time step `t`, `rows` [N,P,T,D] -> the guided prediction [N,C,h,w].
    Tensor predict(const Tensor& x, std::int64_t t, const Tensor& rows) const;
    Tensor draw_one(const SampleRequest& request, const Tensor& rows,
                    const OnEvaluation& on_evaluation) const;

    mutable StableDiffusion model_;
    mutable std::string hash_;
    Sampling sampling_;
    TextGuidance guidance_;
    std::vector<std::int64_t> shape_;
    diffusion::DdpmSchedule schedule_;
};

/// The shape [C,h,w] of the latents of images of that size in pixels; 0: the model's own size.
/// Throws core::UsageError when the size does not fit.
std::vector<std::int64_t> latent_shape(const models::DiffusersDirectory& directory,
                                       std::int64_t height, std::int64_t width);

/// The hash of the weights of all parts. Reads them.
std::string hash_of(const models::DiffusersDirectory& directory);

}  // namespace atelier::inference
