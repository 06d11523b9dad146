#pragma once

#include "atelier/models/prompt_encoder.h"
#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

/// The number of classes of the data; 0 for captioned data.
std::int64_t class_count(const data::Dataset& data);
/// The width of a network's label input for these data: the number of classes, or the width of a
/// caption's embedding.
std::int64_t label_width(const RunConfig& config, const data::Dataset& data);

/// Throws core::UsageError where the config does not work with captions.
void check_captions(const RunConfig& config, const data::Dataset& data);

/// Learns a tokenizer from the run's captions, writes it into the teacher's folder, and returns the
/// config of its text tower as in transformers' config.json.
nlohmann::json begin_text_tower(const RunContext& context, const data::Dataset& data,
                                const std::filesystem::path& teacher);

/// The captions as token ids [M,T], for a teacher that trains its text tower; the tokenizer is read
/// from `teacher`.
diffusion::ConditionTable caption_ids(const data::Dataset& data,
                                      const std::filesystem::path& teacher);

/// `parameters` without those of the text tower.
backends::Parameters without_text_tower(const backends::Parameters& parameters);

/// Writes the text tower in `parameters` as the prompt encoder of `teacher`, which already holds
/// the tokenizer.
void finish_text_tower(const std::filesystem::path& teacher, const nlohmann::json& config,
                       const backends::Parameters& parameters);

/// The run's captions as its teacher embeds them: captions.safetensors with "embeddings" [M,D] and
/// "none" [1,D] of the empty caption, which `atelier partition` reads too. Written when it is
/// missing or belongs to another teacher.
std::filesystem::path caption_embeddings(RunContext& context);
diffusion::ConditionTable caption_table(RunContext& context);

}  // namespace atelier::pipeline
