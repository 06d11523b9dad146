#pragma once

#include <functional>

#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

/// The indices of the samples of `data` in `classes` (all when empty) that probes are compared
/// with: all, or 10,000 drawn with a fixed seed and each class in proportion, whatever the order of
/// the data.
std::vector<std::int64_t> probe_references(const data::Dataset& data,
                                           std::span<const std::int64_t> classes);

/// A function that returns the distance of samples in model space to the training data of `classes`
/// (all when empty): sliced Wasserstein for points, the Frechet distance of features for images
/// when there is a classifier, else an empty function.
std::function<double(const Tensor& samples)> distance_to_data(
    RunContext& context, std::span<const std::int64_t> classes);

}  // namespace atelier::pipeline
