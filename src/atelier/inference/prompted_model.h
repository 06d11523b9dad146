#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "atelier/conditions/router.h"
#include "atelier/inference/ready_model.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::inference {

/// Routes an embedding [D] of unit length.
conditions::Router::Decision route_embedding(const conditions::Router& router,
                                             const Tensor& embedding);

/// Encodes prompts for a model or an ensemble, once for the router and the student together.
/// Thread-safe.
class PromptReader {
public:
    /// `directory` contains the prompt encoder; `network` is that of any of the conditioned models.
    /// Without `router` there is one student. Throws core::Error naming the file.
    PromptReader(const std::filesystem::path& directory, const networks::Network& network,
                 std::optional<conditions::Router> router);

    struct EncodedPrompts {
        Tensor conditioning;  // for the network: embeddings [N,D], or states of all tokens [N,T,D]
        Tensor embeddings;    // [N,D] of unit length, for `route`
    };
    EncodedPrompts encode(std::span<const std::string> prompts) const;

    /// Routes an embedding [D] of unit length to a student; student 0 without a runner-up when
    /// there is only one.
    conditions::Router::Decision route(const Tensor& embedding) const;
    std::int64_t students() const { return router_ ? router_->students() : 1; }

    const models::PromptEncoder& encoder() const { return encoder_; }
    /// The conditioning of the empty prompt, [1,...].
    const Tensor& empty_prompt() const { return empty_prompt_; }

private:
    models::PromptEncoder encoder_;
    std::optional<conditions::Router> router_;
    bool reads_states_;
    Tensor empty_prompt_;
};

/// A model conditioned on prompts, with its guidance and the engine that runs it. Not thread-safe.
class PromptedModel {
public:
    /// Uses classifier-free guidance when `guidance` is not 1, with `empty_prompt` [1,...] as the
    /// unconditional conditioning.
    PromptedModel(models::Model read, const Sampling& sampling, const Engine& engine,
                  const Tensor& empty_prompt, double guidance);
    PromptedModel(PromptedModel&&) = delete;  // the denoiser refers to the model

    /// Samples in model space, [n, shape...], from the noise of the draws' seeds and numbers and
    /// from `conditioning` [n,...].
    Tensor draw(std::span<const Draw> draws, const Tensor& conditioning) const;

    /// The model's hash. Computed on first use, since it reads all weights.
    const std::string& hash() const;

    const models::Model model;

private:
    mutable std::string hash_;
    Sampling sampling_;
    at::Device device_;
    std::shared_ptr<const diffusion::Denoiser> denoiser_;
};

}  // namespace atelier::inference
