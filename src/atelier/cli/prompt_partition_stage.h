#pragma once

#include <cstdint>
#include <string>

namespace atelier::cli {

/// `atelier partition EMBEDDINGS`: splits a set of prompts among students by their embeddings.
struct PromptArguments {
    std::string embeddings, prompts, out, encoder;
    std::int64_t students = 4;
    std::uint64_t seed = 0;
    std::int64_t null_owner = -1;  // -1: the owner of an empty line among the prompts, else the largest cell's
    bool balanced = false, json = false;
};

/// Makes the directory `out` (partition.json, centroids.safetensors, owners.safetensors, survey.json, report.html), atomically. Throws core::UsageError
/// when it exists, core::Error when prompts and embeddings differ in number.
void partition_prompts(const PromptArguments& arguments);

}  // namespace atelier::cli
