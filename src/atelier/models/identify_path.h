#pragma once

#include <filesystem>
#include <string>

namespace atelier::models {

/// What a path holds: its kind, a description for messages, and a suggestion of what to do next.
struct PathInfo {
    enum class Kind {
        nothing,
        other,
        model,
        ensemble,
        classifier,
        run,
        diffusers,
        several_models,
        exported,
        image,
        config,
        pairs,
        prompt_partition,
        data_set,
        stable_diffusion_file,
        low_rank_file,
        diffusers_part,
        diffusers_network,
        pickle,
        safetensors,
        arrays,
        text,
        unknown_folder,
    };
    Kind kind = Kind::other;
    std::string description;  // "is an image (PNG)"
    std::string suggestion;   // "name a model directory"
};

/// Reads names, first bytes and headers only; does not throw, whatever the path holds. What is a
/// data set is for data::is_data_set to say.
PathInfo identify_path(const std::filesystem::path& path);

/// `path`; or, where nothing is at a relative path, what it names among the models that were
/// installed with this program or library, e.g. models/fashion-mnist/k4.
std::filesystem::path located(const std::filesystem::path& path);

/// The directory to open where a model, an ensemble or a diffusers directory is expected: `path`
/// itself (see `located`), or the ensemble of a run. Throws core::Error saying what the path holds
/// instead and what to do.
std::filesystem::path model_at(const std::filesystem::path& path);

/// Throws core::Error: nothing at `path` can be used as a model.
[[noreturn]] void reject_as_model(const std::filesystem::path& path);

}  // namespace atelier::models
