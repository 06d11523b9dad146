#pragma once

#include "atelier/networks/network.h"

namespace atelier::networks {

/// A residual multilayer perceptron for points, conditioned on noise level and class.
struct MlpConfig {
    std::int64_t dimensions = 2;
    std::int64_t classes = 0;
    std::int64_t hidden = 128;
    std::int64_t blocks = 4;  // the bottleneck is after half of them
};

/// F(x; c_noise, labels): `x` [N,dimensions] -> the same shape, and the bottleneck.
Outputs mlp(graph::Builder& ops, const MlpConfig& config, const Inputs& inputs);

/// Hidden features after half of the blocks, [N,hidden].
graph::Value mlp_bottleneck(graph::Builder& ops, const MlpConfig& config, const Inputs& inputs);

/// Reads the keys of MlpConfig from a model's config.json.
Network build_mlp(const core::JsonObject& config);

}  // namespace atelier::networks
