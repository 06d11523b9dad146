#pragma once

#include <functional>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/models/model_directory.h"

namespace atelier::inference {

/// A batch of denoiser inputs: noisy samples, their noise levels and conditions.
struct CalibrationBatch {
    Tensor x_t, sigma;  // [N,...], [N]
    diffusion::Condition condition;
};

/// The network's raw output for a batch, computed by `backend`.
Tensor run(const models::Model& model, const backends::TorchOps& backend,
           const CalibrationBatch& batch);

/// Sees each convolution of a network: layer, input and output.
using ConvolutionObserver =
    std::function<void(const graph::Conv2d& layer, const Tensor& input, const Tensor& output)>;

/// The network's raw output for a batch; reports its convolutions in order.
Tensor observe(const models::Model& model, const CalibrationBatch& batch,
               const ConvolutionObserver& observer);

/// The inputs of a one-step student: `samples` samples at its highest noise level, cycling through
/// `classes`.
std::vector<CalibrationBatch> one_step_calibration_set(const models::Model& model,
                                                       const std::vector<std::int64_t>& classes,
                                                       std::int64_t samples, std::uint64_t seed);

/// The inputs of a model along `samples` trajectories of `steps` Heun steps, one batch per network
/// evaluation.
std::vector<CalibrationBatch> trajectory_calibration_set(const models::Model& model,
                                                         std::int64_t samples, std::int64_t steps,
                                                         std::uint64_t seed);

/// The clipping range with the least mean squared error of rounding to 127 steps, for values whose
/// magnitudes have the histogram `counts` (equal bins from 0 to `max_magnitude`).
double best_range(const std::vector<double>& counts, double max_magnitude);

/// A convolution of a network.
struct CalibratedLayer {
    std::string name;
    double input_range;  // best_range of all its inputs
    double share;        // of the multiplications of all convolutions
};

/// The network's convolutions in execution order, with input ranges measured on `batches`. A layer
/// whose inputs are all zero has a range of 1.
std::vector<CalibratedLayer> calibrate(const models::Model& model,
                                       const std::vector<CalibrationBatch>& batches);

}  // namespace atelier::inference
