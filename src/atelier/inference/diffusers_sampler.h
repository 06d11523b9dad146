#pragma once

#include <mutex>
#include <variant>

#include "atelier/diffusion/flow_schedule.h"
#include "atelier/inference/diffusers_model.h"
#include "atelier/inference/sampler.h"

namespace atelier::inference {

/// Classifier-free guidance of a diffusers directory (Ho and Salimans 2022).
struct DiffusersGuidance {
    double scale = 7.5;      // up to 1: none
    std::string negative{};  // the negative prompt

    bool guides() const { return scale > 1; }

    /// The scale that diffusers' pipeline of a family has.
    static double usual_scale(models::DiffusersFamily family);
};

/// What a diffusers directory is drawn with.
struct DiffusersOptions {
    Engine engine{};
    DiffusersGuidance guidance{};
    std::vector<std::int64_t> shape{};            // of latents, [C,h,w]
    std::vector<models::LowRankFile> low_rank{};  // deltas on its networks
};

/// Encodes prompts with the text encoders of a diffusers directory, which are loaded on first use.
/// Rows are [N,P,T,D], and pooled rows [N,P,W]: the states of the prompt, after those of the
/// negative prompt if there is guidance.
class DiffusersConditioner final : public Conditioner {
public:
    DiffusersConditioner(const std::filesystem::path& path, const DiffusersOptions& options);

    Conditioning encode(std::span<const Condition> conditions) const override;
    const conditions::ClipTokenizer* tokenizer() const override { return &model_.tokenizer(); }

private:
    mutable std::mutex busy_;
    mutable DiffusersModel model_;
    DiffusersGuidance guidance_;
    std::size_t prompts_together_;
};

/// The denoiser of a diffusers directory, loaded on first use, and a sampler of its time steps.
/// Samples are latents; as many are drawn together as images_together says.
class DiffusersSampler final : public Sampler {
public:
    DiffusersSampler(const std::filesystem::path& path, const Sampling& sampling,
                     const DiffusersOptions& options);

    Tensor draw(std::span<const SampleRequest> requests, const Conditioning& conditioning,
                const OnEvaluation& on_evaluation) const override;
    Tensor evaluate(const Tensor& z, const Conditioning& conditioning) const override;
    const std::string& hash() const override;
    std::int64_t parameter_count() const override;

private:
    /// `x` [N,C,h,w] at time step `t` -> the guided prediction [N,C,h,w].
    Tensor predict(const Tensor& x, double t, const Conditioning& conditioning) const;
    /// Samples that are computed together.
    Tensor draw_together(std::span<const SampleRequest> requests, const Conditioning& conditioning,
                         const OnEvaluation& on_evaluation) const;

    mutable DiffusersModel model_;
    mutable std::string hash_;
    Sampling sampling_;
    DiffusersGuidance guidance_;
    std::vector<std::int64_t> shape_;
    std::int64_t factor_;  // pixels per latent along each axis
    std::int64_t classes_;
    at::Device device_;
    std::variant<diffusion::DdpmSchedule, diffusion::FlowSchedule> schedule_;
};

/// The shape [C,h,w] of the latents of images of that size in pixels; 0: the model's own size.
/// Throws core::UsageError when the size does not fit.
std::vector<std::int64_t> latent_shape(const models::DiffusersDirectory& directory,
                                       std::int64_t height, std::int64_t width);

/// The hash of the weights of all parts. Reads them.
std::string hash_of(const models::DiffusersDirectory& directory);

}  // namespace atelier::inference
