#pragma once

#include <cstdint>
#include <string>

namespace atelier::pipeline {

/// The arguments of `atelier partition EMBEDDINGS`, which splits prompts among students by their
/// embeddings.
struct PromptArguments {
    std::string embeddings, prompts, out, encoder;
    std::int64_t students = 4;
    std::uint64_t seed = 0;
    std::int64_t null_owner =
        -1;  // -1: the owner of an empty line in the prompts, else of the largest cell
    bool balanced = false, json = false;
};

/// Creates the directory `out` (partition.json, centroids.safetensors, owners.safetensors,
/// survey.json, report.html) atomically. Throws core::UsageError when it exists, core::Error when
/// the numbers of prompts and embeddings differ.
void partition_prompts(const PromptArguments& arguments);

}  // namespace atelier::pipeline
