#pragma once

#include <filesystem>
#include <span>
#include <string>

namespace atelier::conditions {

/// Learns a small CLIP-style tokenizer from texts and writes it into `folder`, which must exist:
/// vocab.json (all bytes, then the merged tokens, then begin and end), merges.txt and
/// tokenizer_config.json. Byte-pair encoding (Sennrich et al. 2016): the most frequent pair of
/// adjacent tokens becomes one token, at most `merges` times or until no pair occurs twice; ties
/// are broken alphabetically. Prompts will have at most `length` tokens.
void write_learned_tokenizer(const std::filesystem::path& folder,
                             std::span<const std::string> texts, std::int64_t merges,
                             std::int64_t length);

}  // namespace atelier::conditions
