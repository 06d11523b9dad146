#pragma once

#include "atelier/cli/workshop.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::cli {

/// Classes of the data; captioned data have none.
std::int64_t class_count(const data::Dataset& data);
/// Numbers of the labels that a network is given for these data: classes, or what a caption's embedding has.
std::int64_t label_width(const RunConfig& config, const data::Dataset& data);

/// Throws core::UsageError where a config cannot work with captions.
void check_captions(const RunConfig& config, const data::Dataset& data);

/// Writes the tokenizer of a run's captions into the teacher's folder, and says how its text tower is made: a config.json as transformers has it.
nlohmann::json begin_text_tower(const Workshop& workshop, const data::Dataset& data, const std::filesystem::path& teacher);

/// The captions as token ids, for the teacher that learns to read them; its tokenizer lies in `teacher`.
diffusion::ConditionTable caption_ids(const data::Dataset& data, const std::filesystem::path& teacher);

/// Takes the text tower's parameters out of `parameters`.
ops::Parameters without_text_tower(const ops::Parameters& parameters);

/// Writes the text tower among `parameters` as the prompt encoder of `teacher`, whose tokenizer is there.
void finish_text_tower(const std::filesystem::path& teacher, const nlohmann::json& config, const ops::Parameters& parameters);

/// The run's captions as its teacher embeds them: captions.safetensors with "embeddings" [M,D] and "none" [1,D] of the empty one, which also `atelier partition`
/// reads. Made when it is not there, or is another teacher's.
std::filesystem::path caption_embeddings(Workshop& workshop);
diffusion::ConditionTable caption_table(Workshop& workshop);

}  // namespace atelier::cli
