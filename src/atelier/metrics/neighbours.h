#pragma once

#include <cstdint>
#include <vector>

#include "atelier/data/dataset.h"
#include "atelier/metrics/nearest.h"

namespace atelier::metrics {

/// The `k` nearest neighbours in `training` of each of `samples` (model space [N,shape...]) by
/// Euclidean distance over all elements (pixels in [-1,1]), read batch by batch. Indices are the
/// data set's. Throws core::Error when it has fewer than k samples.
Nearest nearest_in(const Tensor& samples, const data::Dataset& training, std::int64_t k);

/// Whether a model copies its training data: nearest training samples of generated samples,
/// compared with those of held-out real samples, which are new by construction.
struct CopyReport {
    Nearest generated, held_out;                       // [N,k] and [M,k]
    double generated_median = 0, held_out_median = 0;  // distance to the nearest training sample
    double closest_limit = 0;  // 1 % quantile of the held-out samples' distances to training data
    double suspicious = 0;     // fraction of generated samples below it; about 0.01 is expected
};

/// `generated` and `held_out` are model-space samples of the training data's shape.
CopyReport copying(const Tensor& generated, const Tensor& held_out, const data::Dataset& training,
                   std::int64_t k = 1);

}  // namespace atelier::metrics
