#pragma once

#include "atelier/data/shards.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/pipeline/run_context.h"

/// Runs whose teacher draws latents: encoded images and captions are computed once and stored in
/// shards.
namespace atelier::pipeline {

/// Whether the config's teacher draws latents: a diffusers directory, a model directory with such a
/// U-Net, or, where neither is there, by network.architecture.
bool draws_latents(const RunConfig& config);

/// The config.json of such a teacher as a model. Throws core::Error naming the file.
models::ModelCard latent_teacher_card(const RunConfig& config);

/// The spec of its latents.
data::SampleSpec latent_spec(const RunConfig& config);

/// `raw` (captioned images, or only prompts) as the teacher's latents. Images that are not encoded
/// yet are encoded into the run's folder latents. Throws core::UsageError where `check_latents`
/// does.
std::shared_ptr<const data::Dataset> latent_dataset(const RunContext& context,
                                                    std::shared_ptr<const data::Dataset> raw);

/// Throws core::UsageError where the config needs pixels but has latents, or images but has
/// prompts; where `data`, as stored on disk, have no captions, or images of another size than the
/// teacher's.
void check_latents(const RunConfig& config, const data::Dataset& data);

/// The run's captions as encoded by the teacher's text tower, in shards in the folder texts:
/// "states" [M,T,D] float16 and "embedding" [M,D].
struct CaptionStates {
    data::Shards shards;
    Tensor none_states, none_embedding;  // [T,D] and [D], of the empty prompt

    /// The embeddings [count,D] of the first `count` captions.
    Tensor embeddings(std::int64_t count) const;
};
CaptionStates caption_states(RunContext& context);

/// Encodes the images (folder latents) and captions (folder texts) of the context's shard now, not
/// when a stage first needs them. Throws core::UsageError where the teacher draws no latents, or is
/// not finished.
void encode_data(RunContext& context);

/// Writes `stem`.png, a grid of a few decoded latents.
void draw_latents(const std::filesystem::path& stem, inference::Autoencoder& autoencoder,
                  const Tensor& samples);

}  // namespace atelier::pipeline
