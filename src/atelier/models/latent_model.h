#pragma once

#include <filesystem>

#include "atelier/models/diffusers_directory.h"
#include "atelier/models/model_directory.h"

/// Stable Diffusion's U-Nets as models among others: a model directory whose network draws latents, with the parts that make states of prompts and pictures of
/// latents beside it, in folders as diffusers has them (text_encoder, tokenizer, vae, scheduler). An ensemble has these parts once.
namespace atelier::models {

/// Whether the directory of a model or an ensemble holds an autoencoder.
bool has_autoencoder(const std::filesystem::path& directory);

/// The config.json that the U-Net of a diffusers directory has as a model.
nlohmann::json model_config_of(const DiffusersDirectory& from);

/// Writes the U-Net of a diffusers directory into `to` as a model directory, tensors bit for bit, with the other parts beside it; config.json has the members of
/// the object `more` too.
void write_latent_model(const DiffusersDirectory& from, const std::filesystem::path& to, const nlohmann::json& more = nlohmann::json::object());

/// Copies what stands beside a network of prompts: its prompt encoder, and where it draws latents the rest; nothing where there is nothing.
void copy_parts(const std::filesystem::path& from, const std::filesystem::path& to);

/// Writes a model directory that draws latents as a diffusers directory, atomically, with the parts that lie beside it or in the ensemble that it belongs to. Throws
/// core::UsageError when it draws no latents or the parts are not there, core::Error when `to` exists.
void write_as_diffusers(const std::filesystem::path& model, const std::filesystem::path& to);

}  // namespace atelier::models
