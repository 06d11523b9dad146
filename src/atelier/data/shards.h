#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/safetensors.h"
#include "atelier/core/shard.h"

namespace atelier::data {

/// The content of a folder of shards: `count` rows, `rows_per_shard` per file but the last, with
/// `origin`, which identifies their source, in the metadata of every shard.
struct ShardSpec {
    std::int64_t count = 0, rows_per_shard = 1024;
    std::map<std::string, std::string> origin;

    /// The rows of the files that are `mine`.
    std::int64_t rows_of(const core::Shard& mine) const;
};

/// Rows of tensors in memory-mapped files shard-00000.safetensors, ...: there may be more of them
/// than fit in memory.
class Shards {
public:
    /// Opens a finished folder. Throws core::Error when a shard is missing or has another origin,
    /// or its tensors have other sizes than those of the first.
    Shards(const std::filesystem::path& folder, const ShardSpec& spec);

    /// Rows of the tensor `name`, [n, ...] float32. Thread-safe. Throws core::Error on a row out of
    /// range.
    Tensor rows(const std::string& name, std::span<const std::int64_t> indices) const;

private:
    std::int64_t count_, rows_per_shard_;
    std::vector<std::shared_ptr<const core::SafetensorsFile>> files_;
};

/// Whether all shards exist and have the origin that `spec` gives.
bool shards_complete(const std::filesystem::path& folder, const ShardSpec& spec);

/// Writes the missing files that are `mine`, each atomically; those of another origin are replaced.
/// `make(first, n)` returns the tensors of rows first..first+n-1, in ascending order. `after(done)`
/// is called after each of them with the number of their rows so far. Returns whether all files are
/// there, those of other processes included.
bool write_shards(
    const std::filesystem::path& folder, const ShardSpec& spec,
    const std::function<backends::Parameters(std::int64_t first, std::int64_t count)>& make,
    const std::function<void(std::int64_t done)>& after, const core::Shard& mine = {});

}  // namespace atelier::data
