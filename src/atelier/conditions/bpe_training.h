#pragma once

#include <filesystem>
#include <span>
#include <string>

namespace atelier::conditions {

/// Learns a small tokenizer of CLIP's form from texts and writes it into `folder`, which exists: vocab.json (all bytes, then what was merged, then begin and end),
/// merges.txt and tokenizer_config.json. Byte-pair encoding (Sennrich et al. 2016): the most frequent pair of neighbouring tokens becomes one token, at most `merges`
/// times or until none occurs twice; equal ones go by their letters. Prompts will have at most `length` tokens.
void write_learned_tokenizer(const std::filesystem::path& folder, std::span<const std::string> texts, std::int64_t merges, std::int64_t length);

}  // namespace atelier::conditions
