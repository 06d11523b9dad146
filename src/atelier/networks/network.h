#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/core/json_file.h"
#include "atelier/graph/ops.h"
#include "atelier/graph/shape_ops.h"
#include "atelier/networks/clip_text.h"

namespace atelier::networks {

/// The inputs of a network: `x` [N,...], `c_noise` [N], `labels` one-hot [N,label_dim] or text
/// states [N,tokens,label_dim] (absent when unconditional), `augment` [N,augment_dim], how training
/// images were augmented (absent: not at all).
struct Inputs {
    graph::Value x, c_noise;
    std::optional<graph::Value> labels, augment{};
};

/// The outputs of a network: the raw output F, shaped like x, and the bottleneck, the features at
/// the lowest resolution, [N,C,h,w] or [N,F].
struct Outputs {
    graph::Value raw, bottleneck;
};

/// A network is a function over a named parameter map, written against the op set of ops/ops.h.
struct Network {
    std::string architecture;
    graph::Shape data_shape;     // of one sample: [C,H,W] or [D]
    std::int64_t label_dim = 0;  // width of a row of labels; 0: unconditional
    std::int64_t tokens =
        0;  // of a text whose states are the labels; 0: labels are one row per sample
    std::int64_t augment_dim = 0;    // 0: reads no augment labels
    std::optional<ClipText> text{};  // turns token ids into labels (diffusion/encoded_text.h); its
                                     // parameters are stored with the network's own

    /// The shape of the labels of `batch` samples; label_dim must not be 0.
    graph::Shape label_shape(std::int64_t batch) const {
        return tokens > 0 ? graph::Shape{batch, tokens, label_dim} : graph::Shape{batch, label_dim};
    }

    std::function<Outputs(graph::Ops&, const Inputs&)> forward;

    /// Only the bottleneck, without computing what follows it.
    std::function<graph::Value(graph::Ops&, const Inputs&)> encode;
};

/// Builds the network that a model directory's config.json describes: `architecture` selects the
/// builder, which defines the other keys. Throws core::Error naming file and key.
Network make_network(const core::JsonObject& config);

/// The supported values of `architecture`.
std::vector<std::string> architectures();

/// How much of a network is traced.
enum class TraceScope { full, encoder_only };

/// Runs `network` through ShapeOps for a batch of one: its parameters, FLOPs and the memory of the
/// activations that `policy` retains.
graph::ShapeOps trace(const Network& network, const graph::ActivationPolicy& policy = {},
                      TraceScope scope = TraceScope::full);

/// The shape of the bottleneck for a batch of one.
graph::Shape bottleneck_shape(const Network& network);

}  // namespace atelier::networks
