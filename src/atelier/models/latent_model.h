#pragma once

#include <filesystem>

#include "atelier/models/diffusers_directory.h"
#include "atelier/models/model_directory.h"

/// Stable Diffusion's U-Nets as models: a model directory whose network generates latents, with the
/// text encoder and the autoencoder beside it, in diffusers' folders (text_encoder, tokenizer, vae,
/// scheduler). An ensemble has these parts once.
namespace atelier::models {

/// Whether the directory of a model or an ensemble holds an autoencoder.
bool has_autoencoder(const std::filesystem::path& directory);

/// The card of a diffusers directory's U-Net as a model.
ModelCard card_of(const DiffusersDirectory& from);

/// Writes the U-Net of a diffusers directory into `to` as a model directory, tensors bit for bit,
/// with the other parts beside it.
void write_latent_model(const DiffusersDirectory& from, const std::filesystem::path& to,
                        std::optional<double> guidance = std::nullopt);

/// Copies the parts beside a text-conditioned network: its prompt encoder, and the other parts if
/// it generates latents. Parts that do not exist are skipped.
void copy_parts(const std::filesystem::path& from, const std::filesystem::path& to);

/// Writes a latent model directory as a diffusers directory, atomically, with the parts beside it
/// or in its ensemble. Throws core::UsageError if it is not a latent model or the parts are
/// missing, core::Error if `to` exists.
void write_as_diffusers(const std::filesystem::path& model, const std::filesystem::path& to);

}  // namespace atelier::models
