#pragma once

#include <functional>

#include "atelier/cli/workshop.h"

namespace atelier::cli {

/// How far samples in model space are from the training data of `classes` (all when empty): sliced Wasserstein for points, the feature distance for
/// images when the config's classifier is there, else an empty function.
std::function<double(const Tensor& samples)> distance_to_data(Workshop& workshop, std::span<const std::int64_t> classes);

}  // namespace atelier::cli
