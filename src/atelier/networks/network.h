#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/core/json_file.h"
#include "atelier/graph/cost.h"
#include "atelier/graph/graph_cache.h"
#include "atelier/networks/clip_text.h"

namespace atelier::networks {

/// The inputs of a network, or anything that there is one of per input: `x` [N,...], the noised
/// samples times c_in; `c_noise` [N], the noise level as the model's NoiseSchedule gives it to
/// networks (EDM: ln(sigma)/4, about -1.6 to 1.1; VE: ln(sigma/2); VP, DDPM and flow: a time step,
/// 0 to 1000); `labels` one-hot [N,label_dim] or text states [N,tokens,label_dim] (absent when
/// unconditional); `augment` [N,augment_dim], how training images were augmented (absent: not at
/// all).
template <class T>
struct InputsOf {
    T x, c_noise;
    std::optional<T> labels{}, augment{};

    /// Those that are present, in this order: the inputs of the network's graph.
    std::vector<T> list() const {
        std::vector<T> all{x, c_noise};
        if (labels) all.push_back(*labels);
        if (augment) all.push_back(*augment);
        return all;
    }
};
using Inputs = InputsOf<graph::Value>;

/// The outputs of a network: the raw output F, shaped like x, and the bottleneck, the features at
/// the lowest resolution, [N,C,h,w] or [N,F].
struct Outputs {
    graph::Value raw, bottleneck;
};

/// How much of a network is recorded.
enum class TraceScope { full, encoder_only };

/// A network is a function over a named parameter map, written against the op set of graph/graph.h.
struct Network {
    std::string architecture;
    graph::Shape data_shape;     // of one sample: [C,H,W] or [D]
    std::int64_t label_dim = 0;  // width of a row of labels, "classes" in config.json, also where
                                 // labels are text; 0: unconditional
    std::int64_t tokens =
        0;  // of a text whose states are the labels; 0: labels are one row per sample
    std::int64_t augment_dim = 0;    // 0: reads no augment labels
    std::optional<ClipText> text{};  // turns token ids into labels (diffusion/encoded_text.h); its
                                     // parameters are stored with the network's own

    /// The shape of the labels of `batch` samples; label_dim must not be 0.
    graph::Shape label_shape(std::int64_t batch) const {
        return tokens > 0 ? graph::Shape{batch, tokens, label_dim} : graph::Shape{batch, label_dim};
    }

    /// The weight [width,label_dim] whose column c embeds class c, by which classes are compared;
    /// empty where there is none.
    std::string label_embedding{};

    /// Adds the network's ops. What may be computed again in the backward pass, to save memory, is
    /// added by Builder::block: elsewhere activation_checkpointing changes nothing.
    std::function<Outputs(graph::Builder&, const Inputs&)> forward;

    /// Only the bottleneck, without computing what follows it: the ops with which `forward` begins,
    /// reading the same parameters in the same order.
    std::function<graph::Value(graph::Builder&, const Inputs&)> encode;

    /// What `forward`, `encode` and the GAN head on its bottleneck have recorded. Copies of a
    /// network share it.
    struct Graphs {
        graph::GraphCache full, encoder_only, head;
    };
    std::shared_ptr<Graphs> graphs = std::make_shared<Graphs>();
};

/// The graph of `network` for inputs of these shapes and any batch, recorded once. Its inputs are
/// InputsOf::list, its outputs raw and bottleneck, or the bottleneck alone.
std::shared_ptr<const graph::Graph> graph_of(const Network& network,
                                             const InputsOf<graph::Shape>& inputs,
                                             TraceScope scope = TraceScope::full);

/// The shapes of all inputs of `network` for a batch of one; without augment labels unless
/// `augmented`.
InputsOf<graph::Shape> input_shapes(const Network& network, bool augmented = false);

/// Builds the network that a model directory's config.json describes: `architecture` selects the
/// builder (architecture.h), which defines the other keys. Throws core::Error naming file and key.
Network make_network(const core::JsonObject& config);

/// The supported values of `architecture`.
std::vector<std::string> architectures();

/// What a batch of one costs. `memory` is that of the activations that the policy retains.
struct Trace {
    std::vector<graph::ParameterSpec> parameters;
    double flops;
    graph::MemoryEstimate memory;
};

/// Follows `network`, augment labels and text tower included.
Trace trace(const Network& network, const graph::ActivationPolicy& policy = {},
            TraceScope scope = TraceScope::full);

/// The shape of the bottleneck for a batch of one.
graph::Shape bottleneck_shape(const Network& network);

}  // namespace atelier::networks
