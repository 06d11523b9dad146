#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "atelier/conditions/embeddings.h"
#include "atelier/conditions/router.h"

namespace atelier::conditions {

/// A partition of prompt space: a prompt belongs to the student whose centroid is nearest to its embedding. Data, not code; its hash ties students
/// to their router as a class partition's does.
struct PromptPartition {
    std::vector<std::vector<float>> centroids;  // a student each, one length
    std::vector<float> offsets;                 // a student each, added to a prompt's cosine: 0, or what makes cells equally large
    std::int64_t null_owner = 0;                // whose the empty prompt is
    std::string method;                         // "kmeans" or "balanced"
    std::string encoder;                        // who made the embeddings; empty: not said

    std::int64_t students() const { return static_cast<std::int64_t>(centroids.size()); }
    Router router() const { return Router(centroids, offsets); }
    /// SHA-256 of all that decides who owns a prompt.
    std::string hash() const;
};

struct PromptPartitionRequest {
    std::int64_t students = 1;
    std::uint64_t seed = 0;
    bool balanced = false;  // cells of equal size, by offsets that hold for unseen prompts too
    std::int64_t sample = 16384;  // rows that clusters are sought in; at least 32 a student are taken
};

/// Spherical k-means over a seeded sample of the rows. Where there are more rows, centroids are then moved to the mean of their cells over all of them,
/// up to four times. Balanced: between moves, offsets are sought under which the sample's cells are equally large. The empty prompt's owner is left at 0.
/// Throws core::UsageError when there are fewer rows than students.
PromptPartition partition_prompts(const Embeddings& embeddings, const PromptPartitionRequest& request);

/// What a partition does to a set of prompts.
struct PromptSurvey {
    struct Cell {
        std::int64_t size = 0;
        double cosine = 0;                   // mean, of its prompts and its centroid
        std::vector<std::int64_t> central;   // up to five rows nearest to the centroid, nearest first
    };
    std::vector<Cell> cells;
    std::vector<std::int32_t> owners;                 // row -> student
    std::vector<float> margins;                       // row -> score less the runner-up's
    std::vector<std::vector<std::int64_t>> borders;   // [owner][runner-up]: prompts for whom these two are the first two
};
PromptSurvey survey(const PromptPartition& partition, const Embeddings& embeddings);

/// Largest cell's size over that of an equal share: 1 is perfect balance.
double imbalance(const PromptSurvey& survey);

/// Writes partition.json and centroids.safetensors into `directory`, which exists.
void write_prompt_partition(const std::filesystem::path& directory, const PromptPartition& partition);

/// Reads what was written. Throws core::Error naming the file when counts, lengths or the hash do not fit.
PromptPartition read_prompt_partition(const std::filesystem::path& directory);

}  // namespace atelier::conditions
