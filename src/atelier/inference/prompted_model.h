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

/// Where an embedding [D] of length 1 lies among the cells of a router.
conditions::Router::Place place_of(const conditions::Router& router, const Tensor& embedding);

/// Reads prompts for a model or an ensemble: once for the router and the student together. Any thread.
class PromptReader {
public:
    /// `directory` has the prompt encoder; `network` is any of those that are told. Without `router` there is one student. Throws core::Error naming the file.
    PromptReader(const std::filesystem::path& directory, const networks::Network& network, std::optional<conditions::Router> router);

    struct Reading {
        Tensor told;        // to the network: embeddings [N,D], or states of all tokens [N,T,D]
        Tensor embeddings;  // [N,D] of length 1, for `place`
    };
    Reading read(std::span<const std::string> prompts) const;

    /// The same among the students' cells; student 0 without a runner-up where there is one student.
    conditions::Router::Place place(const Tensor& embedding) const;
    std::int64_t students() const { return router_ ? router_->students() : 1; }

    const models::PromptEncoder& encoder() const { return encoder_; }
    /// What a network is told of the empty prompt, [1,...].
    const Tensor& none() const { return none_; }

private:
    models::PromptEncoder encoder_;
    std::optional<conditions::Router> router_;
    bool reads_states_;
    Tensor none_;
};

/// A model that is told of prompts, guided where it shall be, and the engine that runs it. One thread at a time.
class PromptedModel {
public:
    /// Samples are led away from `none`, which it is told of the empty prompt, where `guidance` is not 1.
    PromptedModel(models::Model read, const Sampling& sampling, const Engine& engine, const Tensor& none, double guidance);
    PromptedModel(PromptedModel&&) = delete;  // the denoiser looks into the model

    /// Samples in model space, [n, shape...]: noise follows from the draws' seeds and numbers, all else from `told` [n,...].
    Tensor draw(std::span<const Draw> draws, const Tensor& told) const;

    /// The model's hash, computed when it is first asked for: it reads all weights.
    const std::string& hash() const;

    const models::Model model;

private:
    mutable std::string hash_;
    Sampling sampling_;
    at::Device device_;
    std::shared_ptr<const diffusion::Denoiser> denoiser_;
};

}  // namespace atelier::inference
