#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "atelier/core/shard.h"
#include "atelier/inference/engine.h"

namespace atelier::cli {

/// How to generate one image per prompt, with a model that reads prompts.
struct PromptImages {
    std::filesystem::path model;
    std::string sampler;
    std::optional<std::int64_t> steps;
    std::optional<double> guidance;
    std::int64_t seed = 0;
    int side = 0;  // images are resized to side x side pixels; 0: not resized
};

/// Per image: parameters of the network that generates it, and the number of its evaluations; and
/// how many images of other shards are not there yet.
struct GenerationCost {
    std::int64_t parameters, evaluations, missing;
};

/// Generates image i of the seed for prompt i into `folder` as 000000.png and so on, with a
/// description in pictures.json; of several shards, this one's batches of prompts. Existing images
/// are kept, so an interrupted call can be resumed, and the batches are the same in every call.
/// Throws core::UsageError when the folder was begun with other settings or prompts, and
/// core::Interrupted when a stop was requested.
GenerationCost draw_prompts(const PromptImages& settings, std::span<const std::string> prompts,
                            const std::filesystem::path& folder, const inference::Engine& engine,
                            const core::Shard& mine = {});

}  // namespace atelier::cli
