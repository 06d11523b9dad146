#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/shard.h"

namespace atelier::data {

/// Noise, the teacher's sample from it, and its class.
struct Pairs {
    Tensor noise, samples;             // [n, shape...] float32, model space
    std::vector<std::int64_t> labels;  // n
};

/// A folder of pairs: manifest.json (count, shard size, shape, teacher's hash, sampler) and
/// shard-00000.safetensors, ... with `noise`, `samples` and `labels`, and the teacher's hash also
/// in their metadata.
class PairStore {
public:
    /// Opens a finished store. Its shards are memory-mapped: there may be more pairs than fit in
    /// memory. Throws core::Error when pairs are missing or of another size, or when `teacher_hash`
    /// is not empty and differs from the manifest's.
    PairStore(const std::filesystem::path& folder, const std::string& teacher_hash);

    std::int64_t size() const { return static_cast<std::int64_t>(labels_.size()); }
    const std::vector<std::int64_t>& labels() const { return labels_; }
    /// Copies of the pairs at `indices`. Thread-safe.
    Pairs at(const std::vector<std::int64_t>& indices) const;

private:
    /// Tensors that are views of the mapped file.
    struct Shard {
        Tensor noise, samples;
    };
    std::vector<Shard> shards_;
    std::int64_t pairs_per_shard_ = 0;  // pairs per shard
    std::vector<std::int64_t> labels_;
};

struct PairSpec {
    std::int64_t count = 0, shard = 4096;
    std::vector<std::int64_t> shape;
    std::string teacher_hash;
    nlohmann::json sampler;  // recorded

    /// The pairs of the shards that are `mine`.
    std::int64_t pairs_of(const core::Shard& mine) const;
};

/// Writes the missing shards that are `mine`, each atomically, and, where all are there, those of
/// other processes included, the manifest; returns whether they are. Throws core::Error when an
/// existing shard was made by another teacher. `make(first, n)` returns pairs first..first+n-1, as
/// a function of those indices. `after(done)` is called after each of them with the number of their
/// pairs so far.
bool write_pairs(const std::filesystem::path& folder, const PairSpec& spec,
                 const std::function<Pairs(std::int64_t first, std::int64_t count)>& make,
                 const std::function<void(std::int64_t done)>& after, const core::Shard& mine = {});

}  // namespace atelier::data
