#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "atelier/data/dataset.h"

/// Seeded samples of data sets. The first n samples of a set sorted by class, as folders and
/// archives usually are, cover only a few of its classes.
namespace atelier::data {

/// `count` of the positions 0..total-1, increasing; all of them when there are no more. Stratified:
/// each class of `labels` (one per position, or none) gets its proportion of the sample up to
/// rounding, so that neither the order of the positions nor chance changes the mix of classes. A
/// function of the arguments alone.
std::vector<std::int64_t> stratified_sample(std::span<const std::int64_t> labels,
                                            std::int64_t total, std::int64_t count,
                                            std::uint64_t seed, std::string_view name);

/// The same for a data set's samples, and for those at `indices`.
std::vector<std::int64_t> seeded_sample(const Dataset& dataset, std::int64_t count,
                                        std::uint64_t seed, std::string_view name);
std::vector<std::int64_t> seeded_sample(const Dataset& dataset,
                                        std::span<const std::int64_t> indices, std::int64_t count,
                                        std::uint64_t seed, std::string_view name);

/// Consecutive indices first..first+count-1.
std::vector<std::int64_t> consecutive(std::int64_t first, std::int64_t count);

/// Some samples of a data set as an unlabelled data set: sample i is sample indices[i] of
/// `dataset`. Throws core::Error on an index out of range.
std::shared_ptr<const Dataset> subset(std::shared_ptr<const Dataset> dataset,
                                      std::vector<std::int64_t> indices);

/// How many samples of `shape` to process in one batch, at least 1 and at most `most`: 128 MiB of
/// float32.
std::int64_t samples_per_batch(std::span<const std::int64_t> shape, std::int64_t most);

}  // namespace atelier::data
