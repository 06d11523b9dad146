#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/core/safetensors.h"
#include "atelier/ops/parameters.h"

namespace atelier::data {

/// What a folder of shards holds: `count` rows, `each` a file but the last, made of what `origin` says (metadata of every shard).
struct ShardPlan {
    std::int64_t count = 0, each = 1024;
    std::map<std::string, std::string> origin;
};

/// Rows of tensors in files shard-00000.safetensors, ... that are mapped, not read: there may be more of them than memory holds.
class Shards {
public:
    /// Opens a finished folder. Throws core::Error when a shard is missing, made of something else, or its tensors have other sizes than those of the first.
    Shards(const std::filesystem::path& folder, const ShardPlan& plan);

    /// Rows of the tensor `name`, [n, ...] float32. Thread-safe. Throws core::Error on a row out of range.
    Tensor rows(const std::string& name, std::span<const std::int64_t> numbers) const;

private:
    std::int64_t count_, each_;
    std::vector<std::shared_ptr<const core::SafetensorsFile>> files_;
};

/// Whether all of a folder's shards are there and made of what the plan says.
bool shards_are_made(const std::filesystem::path& folder, const ShardPlan& plan);

/// Writes those that are not there yet, each atomically; those made of something else are made again. `make(first, n)` gives the tensors of rows first..first+n-1.
/// `after(done)` is called after each shard.
void write_shards(const std::filesystem::path& folder, const ShardPlan& plan, const std::function<ops::Parameters(std::int64_t first, std::int64_t count)>& make,
                  const std::function<void(std::int64_t done)>& after);

}  // namespace atelier::data
