#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/core/json_file.h"
#include "atelier/ops/ops.h"
#include "atelier/ops/shape_ops.h"

namespace atelier::networks {

/// What a conditional network reads: `x` [N,...], `c_noise` [N], `labels` one-hot [N,classes] (absent when unconditional).
struct Inputs {
    ops::Value x, c_noise;
    std::optional<ops::Value> labels;
};

/// A network is a function over a named parameter map, written in the vocabulary of ops.
struct Network {
    std::string architecture;
    ops::Shape data_shape;     // of one sample: [C,H,W] or [D]
    std::int64_t classes = 0;  // 0: unconditional

    /// The raw output F(x; c_noise, labels), shaped like x.
    std::function<ops::Value(ops::Ops&, const Inputs&)> forward;

    /// The bottleneck: features of the narrowest place, [N,C,h,w] or [N,F], without computing what comes after.
    std::function<ops::Value(ops::Ops&, const Inputs&)> encode;
};

/// Builds the network that a model directory's config.json describes: its `architecture` picks the builder, the other keys
/// are that architecture's own. Throws core::Error naming file and key.
Network make_network(const core::JsonObject& config);

/// Names that `architecture` may have.
std::vector<std::string> architectures();

/// Runs `network` through ShapeOps for a batch of one: its parameters and its work.
ops::ShapeOps trace(const Network& network);

/// The shape of the bottleneck for a batch of one.
ops::Shape bottleneck_shape(const Network& network);

}  // namespace atelier::networks
