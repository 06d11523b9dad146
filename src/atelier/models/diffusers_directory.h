#pragma once

#include <filesystem>
#include <memory>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/json_file.h"
#include "atelier/core/safetensors.h"
#include "atelier/networks/clip_text.h"
#include "atelier/networks/diffusers_network.h"
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

/// The tables of sinusoids (networks::NamedFunction::tables) that `weights` hold rounded to 16
/// bits, in float32: the rounding of positions is an error that the network was not trained with.
backends::Parameters unrounded_tables(const networks::NamedFunctions& functions,
                                      const DiffusersWeights& weights);

/// A network in diffusers' form: a folder with config.json and weights. Parts are read on demand,
/// and throw core::Error naming the file if something is missing, invalid or unsupported.
class DiffusersPart {
public:
    /// Reads config.json, which is of one of `classes`, the first where it does not say; of any
    /// where they are empty.
    explicit DiffusersPart(std::filesystem::path folder,
                           const std::vector<std::string>& classes = {});

    const std::filesystem::path& folder() const { return folder_; }
    const std::string& class_name() const { return class_name_; }
    const networks::NamedFunctions& functions() const { return functions_; }
    /// Checked against the config before any tensor is read.
    DiffusersWeights weights() const;

    /// A description, for `atelier inspect`; checks the weights.
    nlohmann::json about() const;

private:
    std::filesystem::path folder_;
    std::string class_name_;
    networks::NamedFunctions functions_;
};

/// Whether a folder holds a network that can be read as a DiffusersPart, by its config.json alone.
bool is_diffusers_part(const std::filesystem::path& folder);

/// The pipelines of diffusers' that are read.
enum class DiffusersFamily { stable_diffusion, sdxl, sd3, dit };

/// A model as diffusers writes it: model_index.json and one folder per part. Parts are read on
/// demand. All members throw core::Error naming the file if something is missing, invalid or
/// unsupported.
class DiffusersDirectory {
public:
    /// Reads model_index.json and checks the class names in it.
    explicit DiffusersDirectory(std::filesystem::path path);

    const std::filesystem::path& path() const { return path_; }
    DiffusersFamily family() const { return family_; }
    std::string pipeline() const { return index_.at("_class_name").get<std::string>(); }
    bool reads_prompts() const { return family_ != DiffusersFamily::dit; }
    std::filesystem::path tokenizer() const { return path_ / "tokenizer"; }

    /// The folder of the network that denoises: unet or transformer.
    std::string denoiser_part() const;
    DiffusersPart denoiser() const;
    /// Channels and size [C,S,S] of the latents that the network was trained on.
    std::vector<std::int64_t> latent_shape() const;
    /// The folders of the text encoders, and those of their tokenizers; none for classes.
    std::vector<std::string> text_parts() const;
    std::vector<std::filesystem::path> tokenizers() const;

    networks::SdVae vae() const;
    networks::ClipText text(const std::string& part = "text_encoder") const;
    nlohmann::json scheduler_config() const;
    std::string scheduler_class() const;
    std::filesystem::path scheduler_file() const {
        return path_ / "scheduler" / "scheduler_config.json";
    }

    /// Checked against the configs before any tensor is read.
    DiffusersWeights denoiser_weights() const { return denoiser().weights(); }
    DiffusersWeights vae_weights() const;
    DiffusersWeights text_weights(const std::string& part = "text_encoder") const;
    /// Of all networks, by their folders.
    std::map<std::string, DiffusersWeights> all_weights() const;

    /// Of Stable Diffusion 1 and 2.
    networks::SdUnet unet() const;
    DiffusersWeights unet_weights() const { return denoiser_weights(); }

    /// Throws core::Error where a directory has an encoder whose states prompts need and which is
    /// not read: T5, of Stable Diffusion 3.
    void require_readable_text() const;
    /// SDXL's: whether no negative prompt means states of zeros.
    bool zeros_for_no_prompt() const;
    /// DiT's: the number of classes, and their names, empty if there are none.
    std::int64_t classes() const;
    std::vector<std::string> class_names() const;

    /// A description of the directory, for `atelier inspect`; checks every part.
    nlohmann::json about() const;

private:
    void check_text_width() const;

    std::filesystem::path path_;
    nlohmann::json index_;
    DiffusersFamily family_;
};

/// Copies a part's .json and .txt files except shard indices; does nothing if there is no such
/// part.
void copy_texts(const std::filesystem::path& from, const std::filesystem::path& to);

/// Writes the tensors bit for bit into one file, under their stored names.
void copy_weights(const DiffusersWeights& weights, const std::filesystem::path& to);

/// Low-rank deltas by the folder of the network that they change (models/low_rank_file.h).
using PartDeltas = std::map<std::string, backends::Parameters>;

/// Writes the same networks to a new directory, one safetensors file each, tensors bit for bit and
/// under their stored names; those that `deltas` change are merged with them and keep their types.
/// Throws core::Error if `to` exists.
void write_diffusers_directory(const DiffusersDirectory& from, const std::filesystem::path& to,
                               const PartDeltas& deltas = {});

/// The config and the weights of an autoencoder in a folder of its own. Both throw core::Error
/// naming the file.
networks::SdVae read_vae_config(const std::filesystem::path& folder);
DiffusersWeights vae_weights_in(const std::filesystem::path& folder,
                                const networks::SdVae& network);

std::vector<graph::ParameterSpec> parameters_of(const networks::SdUnet& network);
std::vector<graph::ParameterSpec> parameters_of(const networks::SdVae& network);
std::vector<graph::ParameterSpec> parameters_of(const networks::ClipText& network);

}  // namespace atelier::models
