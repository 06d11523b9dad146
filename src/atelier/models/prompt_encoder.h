#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/diffusion/text_reading.h"
#include "atelier/networks/clip_text.h"
#include "atelier/ops/parameters.h"

namespace atelier::models {

/// Token ids of prompts, padded: [N,T] int64. Throws core::Error on a prompt that is not valid UTF-8.
Tensor token_ids(const conditions::ClipTokenizer& tokenizer, std::span<const std::string> prompts);

/// What turns prompts into the embeddings that a model is conditioned on and an ensemble routes by: a text tower in the folder text_encoder (config.json and
/// weights as transformers' CLIPTextModel has them) and its tokenizer in the folder tokenizer.
struct PromptEncoder {
    networks::ClipText tower;
    ops::Parameters parameters;
    conditions::ClipTokenizer tokenizer;

    /// States of all tokens [N,T,width], and embeddings [N,width] of length 1; float32, each a function of its prompt alone. Computed where `parameters` lie.
    diffusion::TextReading read(std::span<const std::string> prompts) const;
    /// The embeddings alone.
    Tensor embed(std::span<const std::string> prompts) const;
};

/// Whether the directory of a model or an ensemble holds one.
bool has_prompt_encoder(const std::filesystem::path& directory);

/// Throws core::UsageError, for those who can only ask for classes, where a directory's model reads prompts.
void refuse_prompts(const std::filesystem::path& directory);

/// Throws core::Error naming the file that is missing or unsound.
PromptEncoder read_prompt_encoder(const std::filesystem::path& directory);

}  // namespace atelier::models
