#pragma once

#include <cstdint>
#include <vector>

#include "atelier/data/dataset.h"
#include "atelier/evaluation/nearest.h"

namespace atelier::evaluation {

/// For each of `samples` (model space [N,shape...]) the `k` nearest of `training` by Euclidean distance over all its numbers
/// (pixels in [-1,1]), read block by block. Indices are the data set's. Throws core::Error when it holds fewer than k samples.
Nearest nearest_in(const Tensor& samples, const data::Dataset& training, std::int64_t k);

/// Is a model copying its training data? Generated samples beside held-out real ones, which are new by construction.
struct CopyReport {
    Nearest generated, held_out;                       // [N,k] and [M,k]
    double generated_median = 0, held_out_median = 0;  // distance to the nearest training sample
    double closest_limit = 0;                          // 1 % of the held-out samples are nearer to training data than this
    double suspicious = 0;                             // share of generated samples nearer than that; about 0.01 is innocent
};

/// `generated` and `held_out` are model-space samples of the training data's shape.
CopyReport copying(const Tensor& generated, const Tensor& held_out, const data::Dataset& training, std::int64_t k = 1);

}  // namespace atelier::evaluation
