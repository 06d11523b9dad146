#pragma once

#include <filesystem>
#include <string>

#include "atelier/diffusion/denoiser.h"
#include "atelier/models/model_card.h"

namespace atelier::models {

/// A model: the contents of a model directory, its card and its weights.
struct Model : ModelCard {
    backends::Parameters parameters;
    std::shared_ptr<const core::SafetensorsFile>
        mapped;  // the file that `parameters` are views into; null if they are copies

    /// Whether some of its convolutions are quantised to int8 (backends/torch/quantised.h).
    bool quantised() const { return quantisation.has_value(); }

    /// The rank of a student stored as low-rank deltas over a base (backends/torch/low_rank.h);
    /// else 0.
    std::int64_t low_rank() const { return lora ? lora->rank : 0; }
    /// The expected names and shapes of `parameters`.
    std::vector<graph::ParameterSpec> specs() const;

    /// The number of elements of the network's own tensors, without int8 scales and ranges.
    std::int64_t parameter_count() const;

    /// backends::hash_of the parameters.
    std::string hash() const;

    /// Releases the pages of mapped parameters until they are accessed again.
    void release_pages() const;

    /// The model as a denoiser; the model must outlive it.
    diffusion::EdmDenoiser denoiser(const backends::Compute& compute = {}) const;
};

/// A model with random parameters drawn from `seed`; low-rank deltas have no base yet.
Model init_model(ModelCard card, std::uint64_t seed);
/// The same for the card of a config.json.
Model init_model(const nlohmann::json& config, std::uint64_t seed);

/// How weights are loaded. `copied`: float32, may be modified. `mapped`: read-only views into the
/// file (backends::map_parameters), int8 where the file holds int8; copies on devices other than
/// the CPU. `shared`: low-rank deltas stay separate from their base, which is in memory once for
/// all models that use it; otherwise they are merged with it.
enum class Weights { copied, mapped, shared };

/// Reads a model directory and checks all of it. Throws core::Error naming the file.
Model read_model(const std::filesystem::path& directory, at::Device device = at::kCPU,
                 Weights weights = Weights::copied);

/// The model of `config` and the tensors of a checkpoint (EDM's resampling filters are ignored).
/// Throws core::Error, beginning with `where`, if they do not match.
Model model_of(const nlohmann::json& config, const backends::Parameters& tensors,
               const std::string& where);

/// The card of a model directory as a model without parameters.
Model read_model_config(const std::filesystem::path& directory);

/// Additional weights of the same network, by the part of the file name between "model-" and
/// ".safetensors": "raw", "ema-0.9999".
using MoreWeights = std::map<std::string, backends::Parameters>;

/// Writes config.json, model.safetensors and one file per entry of `more`, replacing existing files
/// one by one, each atomically; config.json last.
void write_model(const std::filesystem::path& directory, const Model& model,
                 const MoreWeights& more = {});

bool is_model_directory(const std::filesystem::path& path);

}  // namespace atelier::models
