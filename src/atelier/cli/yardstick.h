#pragma once

#include <functional>

#include "atelier/cli/workshop.h"

namespace atelier::cli {

/// The samples of `data` in `classes` (all when empty) that probes are compared with: all, or a
/// seeded sample of 10,000 with each class by its share, whatever the order of the data.
std::vector<std::int64_t> probe_references(const data::Dataset& data,
                                           std::span<const std::int64_t> classes);

/// How far samples in model space are from the training data of `classes` (all when empty): sliced Wasserstein for points, the feature distance for
/// images when the config's classifier is there, else an empty function.
std::function<double(const Tensor& samples)> distance_to_data(Workshop& workshop, std::span<const std::int64_t> classes);

}  // namespace atelier::cli
