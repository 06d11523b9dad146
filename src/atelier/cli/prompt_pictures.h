#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "atelier/inference/engine.h"

namespace atelier::cli {

/// A picture for each of some prompts, by a model that reads prompts or a diffusers directory.
struct PromptPictures {
    std::filesystem::path model;
    std::string sampler;
    std::optional<std::int64_t> steps;
    std::optional<double> guidance;
    std::int64_t seed = 0;
    int side = 0;  // pictures are squares of so many pixels, scaled where the model draws others; 0: as it draws them
};

/// Whether a model can be asked so.
bool draws_prompts(const std::filesystem::path& model);

/// What a picture took: parameters of the network that drew it, and how often it was evaluated.
struct PictureFacts {
    std::int64_t parameters, evaluations;
};

/// Draws picture i of the seed for prompt i into `folder` as 000000.png and so on, with pictures.json that says what they are of. Pictures that are there are not drawn
/// again. Throws core::UsageError when the folder holds pictures of something else, core::Interrupted when a stop was requested.
PictureFacts draw_prompts(const PromptPictures& wanted, std::span<const std::string> prompts,
                          const std::filesystem::path& folder, const inference::Engine& engine);

}  // namespace atelier::cli
