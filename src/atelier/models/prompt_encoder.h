#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "atelier/backends/torch/parameters.h"
#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/diffusion/encoded_text.h"
#include "atelier/networks/clip_text.h"

namespace atelier::models {

/// Padded token ids of prompts, [N,T] int64. Throws core::Error on a prompt that is not valid
/// UTF-8.
Tensor token_ids(const conditions::ClipTokenizer& tokenizer, std::span<const std::string> prompts);

/// Encodes prompts to the embeddings that models are conditioned on and ensembles route by: a text
/// tower in the folder text_encoder (config.json and weights of transformers' CLIPTextModel) and
/// its tokenizer in the folder tokenizer.
struct PromptEncoder {
    networks::ClipText tower;
    backends::Parameters parameters;
    conditions::ClipTokenizer tokenizer;

    /// Hidden states of all tokens [N,T,width], and embeddings [N,width] of unit length; float32,
    /// each a function of its prompt alone. Computed on the device of `parameters`.
    diffusion::EncodedText encode(std::span<const std::string> prompts) const;
    /// The embeddings only, [N,width].
    Tensor embed(std::span<const std::string> prompts) const;
};

/// Whether the directory of a model or an ensemble has a prompt encoder.
bool has_prompt_encoder(const std::filesystem::path& directory);

/// Throws core::UsageError if a directory's model is conditioned on prompts; for callers that
/// support classes only.
void reject_prompts(const std::filesystem::path& directory);

/// Throws core::Error naming the file that is missing or invalid.
PromptEncoder read_prompt_encoder(const std::filesystem::path& directory);

}  // namespace atelier::models
