#pragma once

#include <filesystem>
#include <string>

namespace atelier::models {

/// The one answer to "what lies at this path?": what it is in words, and what its owner would do next.
struct Finding {
    enum class Kind {
        nothing, other, model, ensemble, classifier, run, diffusers, several_models, exported, picture, config, pairs, prompt_partition, data_set,
        stable_diffusion_file, low_rank_file, diffusers_part, pickle, safetensors, arrays, text,
    };
    Kind kind = Kind::other;
    std::string is;    // "is a picture (PNG)"
    std::string next;  // "name a model directory"
};

/// Looks at names, first bytes and headers alone; never throws for what it finds.
Finding what_is(const std::filesystem::path& path);

/// The directory to open where a model, an ensemble or a diffusers directory is wanted: `path` itself, or the ensemble of a run. Throws core::Error saying what is
/// there instead and what to do.
std::filesystem::path model_at(const std::filesystem::path& path);

/// Throws core::Error: nothing at `path` can be used as a model.
[[noreturn]] void refuse_as_model(const std::filesystem::path& path);

}  // namespace atelier::models
