#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "atelier/conditions/embeddings.h"
#include "atelier/conditions/router.h"

namespace atelier::conditions {

/// A partition of prompt space: a prompt belongs to the student whose centroid is nearest to its
/// embedding. Its hash ties students to their router, as a class partition's does.
struct PromptPartition {
    std::vector<std::vector<float>> centroids;  // one per student, equal lengths
    std::vector<float> offsets;   // one per student, added to a prompt's cosine: 0, or values
                                  // that make cells equally large
    std::int64_t null_owner = 0;  // owner of the empty prompt
    std::string method;           // one of prompt_partition_methods
    std::string encoder;          // of the embeddings; empty: unknown

    std::int64_t students() const { return static_cast<std::int64_t>(centroids.size()); }
    Router router() const { return Router(centroids, offsets); }
    /// SHA-256 of everything that decides who owns a prompt.
    std::string hash() const;
};

struct PromptPartitionRequest {
    std::int64_t students = 1;
    std::uint64_t seed = 0;
    std::string method = "kmeans";  // one of prompt_partition_methods
    std::int64_t sample = 16384;    // rows used for clustering; at least 32 per student
};

/// "kmeans", and "balanced": cells of equal size, by offsets that also apply to unseen prompts.
std::vector<std::string> prompt_partition_methods();

/// Spherical k-means over a seeded sample of the rows. Where there are more rows, centroids are
/// then moved to the mean of their cells over all of them, up to four times. Balanced: between
/// moves, offsets are searched under which the sample's cells are equally large. The owner of the
/// empty prompt stays 0. Throws core::UsageError when there are fewer rows than students, or no
/// such method.
PromptPartition partition_prompts(const Embeddings& embeddings,
                                  const PromptPartitionRequest& request);

/// Statistics of a partition over a set of prompts.
struct PromptSurvey {
    struct Cell {
        std::int64_t size = 0;
        double cosine = 0;  // mean cosine of its prompts with its centroid
        std::vector<std::int64_t>
            central;  // up to five rows nearest to the centroid, nearest first
    };
    std::vector<Cell> cells;
    std::vector<std::int32_t> owners;                // row -> student
    std::vector<float> margins;                      // row -> score minus the runner-up's
    std::vector<std::vector<std::int64_t>> borders;  // [owner][runner-up]: number of prompts
};
PromptSurvey survey(const PromptPartition& partition, const Embeddings& embeddings);

/// Size of the largest cell divided by the mean size: 1 is perfect balance.
double imbalance(const PromptSurvey& survey);

/// Writes partition.json and centroids.safetensors into `directory`, which must exist.
void write_prompt_partition(const std::filesystem::path& directory,
                            const PromptPartition& partition);

/// Reads what write_prompt_partition wrote. Throws core::Error naming the file when counts, lengths
/// or the hash do not match.
PromptPartition read_prompt_partition(const std::filesystem::path& directory);

}  // namespace atelier::conditions
