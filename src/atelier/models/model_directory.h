#pragma once

#include <filesystem>
#include <string>

#include "atelier/diffusion/denoiser.h"
#include "atelier/diffusion/noise_levels.h"
#include "atelier/models/data_form.h"
#include "atelier/networks/network.h"

namespace atelier::models {

/// A model: what lies in a model directory (config.json and model.safetensors). `config` keeps keys that this program does not know.
struct Model {
    nlohmann::json config;
    networks::Network network;
    ops::Parameters parameters;
    diffusion::Scheme scheme;
    diffusion::NoiseRange range;
    DataForm form;
    std::shared_ptr<const core::SafetensorsFile> mapped;  // the file that `parameters` look into, or null where they are copies

    /// Whether convolutions of it are made for int8 (ops/quantised.h).
    bool quantised() const { return config.contains("quantisation"); }

    /// Of a student that is low-rank deltas over a base (ops/low_rank.h): their rank; else 0.
    std::int64_t low_rank() const;
    /// What `parameters` must be.
    std::vector<ops::ParameterSpec> specs() const;

    /// Numbers of the network's own tensors; scales and ranges of int8 are none.
    std::int64_t parameter_count() const;

    /// ops::hash_of the parameters.
    std::string hash() const;

    /// Lets mapped parameters go from memory until they are looked at again.
    void release_pages() const;

    /// Seen as a denoiser; the model must outlive it.
    diffusion::EdmDenoiser denoiser(const ops::Compute& compute = {}) const;
};

/// A model with fresh parameters drawn from `seed`; deltas stand on nothing yet. `config` must name architecture and sizes; throws core::Error otherwise.
Model fresh_model(const nlohmann::json& config, std::uint64_t seed);

/// Copied weights are float32 and may be changed; mapped ones look into the file and must not be (ops::map_parameters), and are int8 where it holds
/// int8. On other devices than the CPU all are copies. Deltas are merged with their base, unless the base is shared: then they stand on it, and it is in memory once
/// however many models do.
enum class Weights { copied, mapped, shared };

/// Reads and checks a model directory; everything is checked before anything is believed. Throws core::Error naming the file.
Model read_model(const std::filesystem::path& directory, at::Device device = at::kCPU, Weights weights = Weights::copied);

/// The model of `config` and the tensors of a checkpoint (EDM's resampling filters among them are passed over). Throws core::Error, beginning with
/// `where`, when they do not belong together.
Model model_of(const nlohmann::json& config, const ops::Parameters& tensors, const std::string& where);

/// Only config.json and the network; `parameters` stays empty.
Model read_model_config(const std::filesystem::path& directory);

/// Further weights of the same network, by what stands between "model-" and ".safetensors": "raw", "ema-0.9999".
using MoreWeights = std::map<std::string, ops::Parameters>;

/// Writes config.json, model.safetensors and one file for each of `more`, replacing what was there file by file, each atomically; config.json last.
void write_model(const std::filesystem::path& directory, const Model& model, const MoreWeights& more = {});

bool is_model_directory(const std::filesystem::path& path);

}  // namespace atelier::models
