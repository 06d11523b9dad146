#pragma once

#include "atelier/cli/workshop.h"
#include "atelier/data/shards.h"
#include "atelier/inference/autoencoder.h"

/// Runs whose teacher draws latents: what its autoencoder makes of images, and its text tower of captions, is computed once and kept in shards.
namespace atelier::cli {

/// Whether the config's teacher draws latents: a diffusers directory, a model directory with such a U-Net, or, where neither is there, by network.architecture.
bool draws_latents(const RunConfig& config);

/// The config.json of such a teacher as a model. Throws core::Error naming the file.
nlohmann::json latent_teacher_json(const RunConfig& config);

/// What its latents are.
models::DataForm latent_form(const RunConfig& config);

/// `raw`, captioned images or prompts alone, as the teacher's latents. Images are encoded into the run's folder latents, where that is not done yet. Throws
/// core::UsageError where `check_latents` does.
std::shared_ptr<const data::Dataset> latents_of(const Workshop& workshop, std::shared_ptr<const data::Dataset> raw);

/// Throws core::UsageError where a config asks of latents what only images have, or of prompts what needs images; where `data`, as they lie on disk, have no captions,
/// or images of another size than the teacher's.
void check_latents(const RunConfig& config, const data::Dataset& data);

/// What the teacher's text tower makes of the run's captions, in shards in the folder texts: "states" [M,T,D] float16 and "embedding" [M,D].
struct CaptionStates {
    data::Shards shards;
    Tensor none_states, none_embedding;  // [T,D] and [D], of the empty prompt

    /// Embeddings [M,D] of all.
    Tensor embeddings(std::int64_t count) const;
};
CaptionStates caption_states(Workshop& workshop);

/// Draws a picture of a few latents, decoded.
void draw_latents(const std::filesystem::path& stem, inference::Autoencoder& autoencoder, const Tensor& samples);

}  // namespace atelier::cli
