#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/core/json_file.h"
#include "atelier/networks/clip_text.h"
#include "atelier/ops/ops.h"
#include "atelier/ops/shape_ops.h"

namespace atelier::networks {

/// What a network reads: `x` [N,...], `c_noise` [N], `labels` one-hot [N,classes] or states of a text [N,tokens,classes] (absent when unconditional),
/// `augment` [N,augment_dim], which say how training images were augmented (absent: not at all).
struct Inputs {
    ops::Value x, c_noise;
    std::optional<ops::Value> labels, augment{};
};

/// What a network makes of its inputs: the raw output F, shaped like x, and on the way there the bottleneck, the features of the narrowest
/// place, [N,C,h,w] or [N,F].
struct Outputs {
    ops::Value raw, bottleneck;
};

/// A network is a function over a named parameter map, written in the vocabulary of ops.
struct Network {
    std::string architecture;
    ops::Shape data_shape;     // of one sample: [C,H,W] or [D]
    std::int64_t classes = 0;  // 0: unconditional
    std::int64_t tokens = 0;   // of a text whose states labels are; 0: labels are one row a sample
    std::int64_t augment_dim = 0;  // 0: reads no augment labels
    std::optional<ClipText> text{};  // turns token ids into labels (diffusion/text_reading.h); its parameters lie beside the network's own

    /// Of the labels of `batch` samples; classes must not be 0.
    ops::Shape label_shape(std::int64_t batch) const { return tokens > 0 ? ops::Shape{batch, tokens, classes} : ops::Shape{batch, classes}; }

    std::function<Outputs(ops::Ops&, const Inputs&)> forward;

    /// The bottleneck alone, without computing what comes after it.
    std::function<ops::Value(ops::Ops&, const Inputs&)> encode;
};

/// Builds the network that a model directory's config.json describes: its `architecture` picks the builder, the other keys
/// are that architecture's own. Throws core::Error naming file and key.
Network make_network(const core::JsonObject& config);

/// Names that `architecture` may have.
std::vector<std::string> architectures();

/// How far a network is run.
enum class Extent { whole, encoder };

/// Runs `network` through ShapeOps for a batch of one: its parameters and its work, and the memory of values that are kept as `keeping` says.
ops::ShapeOps trace(const Network& network, const ops::Keeping& keeping = {}, Extent extent = Extent::whole);

/// The shape of the bottleneck for a batch of one.
ops::Shape bottleneck_shape(const Network& network);

}  // namespace atelier::networks
