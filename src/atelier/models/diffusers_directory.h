#pragma once

#include <filesystem>
#include <memory>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/json_file.h"
#include "atelier/core/safetensors.h"
#include "atelier/networks/clip_text.h"
#include "atelier/networks/sd_unet.h"
#include "atelier/networks/sd_vae.h"

namespace atelier::models {

bool is_diffusers_directory(const std::filesystem::path& path);

/// The weights of one network of a diffusers directory: one safetensors file, or several that an
/// index names, mapped. Each tensor is float32, float16 or bfloat16.
class DiffusersWeights {
public:
    /// Opens the weights in `folder`. Throws core::Error naming the file if there are none, a shard
    /// is missing, or the index and the shards disagree.
    explicit DiffusersWeights(const std::filesystem::path& folder);

    struct TensorLocation {
        std::shared_ptr<const core::SafetensorsFile> file;
        std::string name;  // in the file; older files have older names
    };
    /// Tensors by the names that networks use, without buffers.
    const std::map<std::string, TensorLocation>& locations() const { return locations_; }
    const std::vector<std::filesystem::path>& files() const { return files_; }
    std::int64_t count() const;  // total number of elements
    std::string types() const;   // "F16", or several separated by commas

    /// Throws core::Error naming the file and the first tensor that is missing, superfluous, or of
    /// another shape or type than `specs` allow. Reads no tensor.
    void check_against(std::span<const graph::ParameterSpec> specs) const;

    /// As float32.
    backends::Parameters read() const;
    /// In their stored types, as views into the mapped files.
    backends::Parameters map() const;
    /// Releases the mapped files' pages from memory; they are read again on the next access.
    void release_pages() const;

private:
    void add(const std::filesystem::path& path, const std::vector<std::string>* names);
    void add_shards(const std::filesystem::path& index);

    std::filesystem::path folder_;
    std::vector<std::filesystem::path> files_;
    std::map<std::string, TensorLocation> locations_;
};

/// Stable Diffusion 1 or 2 as diffusers writes it: model_index.json and one folder per part. Parts
/// are read on demand. All members throw core::Error naming the file if something is missing,
/// invalid or unsupported.
class DiffusersDirectory {
public:
    /// Reads model_index.json and checks the class names in it.
    explicit DiffusersDirectory(std::filesystem::path path);

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path tokenizer() const { return path_ / "tokenizer"; }

    networks::SdUnet unet() const;
    networks::SdVae vae() const;
    networks::ClipText text() const;
    nlohmann::json scheduler_config() const;
    std::filesystem::path scheduler_file() const {
        return path_ / "scheduler" / "scheduler_config.json";
    }

    /// Checked against the configs before any tensor is read.
    DiffusersWeights unet_weights() const;
    DiffusersWeights vae_weights() const;
    DiffusersWeights text_weights() const;

    /// A description of the directory, for `atelier inspect`; checks every part.
    nlohmann::json about() const;

private:
    std::filesystem::path path_;
    nlohmann::json index_;
};

/// Copies a part's .json and .txt files except shard indices; does nothing if there is no such
/// part.
void copy_texts(const std::filesystem::path& from, const std::filesystem::path& to);

/// Writes the tensors bit for bit into one file, under their stored names.
void copy_weights(const DiffusersWeights& weights, const std::filesystem::path& to);

/// Writes the same networks to a new directory, one safetensors file each, tensors bit for bit and
/// under their stored names. Throws core::Error if `to` exists.
void write_diffusers_directory(const DiffusersDirectory& from, const std::filesystem::path& to);

/// The config and the weights of an autoencoder in a folder of its own. Both throw core::Error
/// naming the file.
networks::SdVae read_vae_config(const std::filesystem::path& folder);
DiffusersWeights vae_weights_in(const std::filesystem::path& folder,
                                const networks::SdVae& network);

std::vector<graph::ParameterSpec> parameters_of(const networks::SdUnet& network);
std::vector<graph::ParameterSpec> parameters_of(const networks::SdVae& network);
std::vector<graph::ParameterSpec> parameters_of(const networks::ClipText& network);

}  // namespace atelier::models
