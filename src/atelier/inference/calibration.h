#pragma once

#include <functional>
#include <string>
#include <vector>

#include "atelier/models/model_directory.h"
#include "atelier/ops/torch_ops.h"

namespace atelier::inference {

/// What a network is given when it is used: noisy samples, their levels and conditions.
struct NetworkUse {
    Tensor x_t, sigma;  // [N,...], [N]
    diffusion::Condition condition;
};

/// What the network makes of one use, through `speaker`: its raw output.
Tensor run(const models::Model& model, ops::Ops& speaker, const NetworkUse& use);

/// Computes as LibTorch does, and shows each convolution to `see`: its name and layer, what it was given and what it made of that.
class ConvolutionWatcher : public ops::TorchOps {
public:
    using See = std::function<void(const std::string& name, const ops::Convolution& layer, const Tensor& input, const Tensor& output)>;
    ConvolutionWatcher(const ops::Parameters& parameters, See see) : TorchOps(parameters), see_(std::move(see)) {}

    ops::Value conv2d(const ops::Value& x, const std::string& name, const ops::Convolution& layer) override;

private:
    See see_;
};

/// A student's own work: `samples` one-step draws at its highest level, of `classes` in turn.
std::vector<NetworkUse> uses_in_one_step(const models::Model& model, const std::vector<std::int64_t>& classes, std::int64_t samples, std::uint64_t seed);

/// What a model is given along `samples` paths of `steps` Heun steps, a batch an evaluation.
std::vector<NetworkUse> uses_along_paths(const models::Model& model, std::int64_t samples, std::int64_t steps, std::uint64_t seed);

/// The range within which numbers are best held when they are rounded to 127 steps of it: the one with the least mean square error, of those that a
/// histogram of magnitudes shows (`counts`, of equal bins up to `largest`).
double best_range(const std::vector<double>& counts, double largest);

/// A convolution on the way through a network.
struct CalibratedLayer {
    std::string name;
    double input_range;  // best_range of all that it was given
    double share;        // of the convolutions' multiplications
};

/// The network's convolutions in the order of use, with ranges from `uses`. One on which only zeros came has a range of 1.
std::vector<CalibratedLayer> calibrate(const models::Model& model, const std::vector<NetworkUse>& uses);

}  // namespace atelier::inference
