#include "atelier/networks/network.h"

#include "atelier/core/error.h"
#include "atelier/networks/architecture.h"

namespace atelier::networks {

namespace {

/// Adds the network's ops: outputs raw and bottleneck, or the bottleneck alone.
std::vector<graph::Value> add_ops(graph::Builder& ops, const Network& network, const Inputs& inputs,
                                  TraceScope scope) {
    if (scope == TraceScope::encoder_only) return {network.encode(ops, inputs)};
    const Outputs outputs = network.forward(ops, inputs);
    return {outputs.raw, outputs.bottleneck};
}

void add_text(Network& network, const core::JsonObject& config) {
    network.text = ClipText::of(config);
    if (network.text->width != network.label_dim) {
        core::fail(
            "{}: \"hidden_size\" is {}, but the network reads text states of width {} "
            "(\"classes\")",
            config.where(), network.text->width, network.label_dim);
    }
}

}  // namespace

Network make_network(const core::JsonObject& config) {
    Network network = architecture_named(config.text("architecture"), config.where()).build(config);
    if (config.has("text")) add_text(network, config.object("text"));
    return network;
}

std::shared_ptr<const graph::Graph> graph_of(const Network& network,
                                             const InputsOf<graph::Shape>& shapes,
                                             TraceScope scope) {
    graph::GraphCache& cache =
        scope == TraceScope::full ? network.graphs->full : network.graphs->encoder_only;
    return cache.graph(shapes.list(), [&](graph::Builder& ops, std::span<const graph::Value> in) {
        Inputs inputs{in[0], in[1]};
        if (shapes.labels) inputs.labels = in[2];
        if (shapes.augment) inputs.augment = in.back();
        return add_ops(ops, network, inputs, scope);
    });
}

InputsOf<graph::Shape> input_shapes(const Network& network, bool augmented) {
    graph::Shape x{1};
    x.insert(x.end(), network.data_shape.begin(), network.data_shape.end());
    InputsOf<graph::Shape> shapes{x, {1}};
    if (network.label_dim > 0) shapes.labels = network.label_shape(1);
    if (augmented && network.augment_dim > 0) shapes.augment = {1, network.augment_dim};
    return shapes;
}

Trace trace(const Network& network, const graph::ActivationPolicy& policy, TraceScope scope) {
    const InputsOf<graph::Shape> shapes = input_shapes(network, true);
    graph::Builder ops;
    Inputs inputs{ops.input(shapes.x), ops.input(shapes.c_noise)};
    if (shapes.labels) inputs.labels = ops.input(*shapes.labels);
    if (shapes.augment) inputs.augment = ops.input(*shapes.augment);
    std::vector<graph::Value> outputs = add_ops(ops, network, inputs, scope);
    if (network.text && scope == TraceScope::full) {
        outputs.push_back(
            network.text->forward(ops, ops.input(graph::Shape{1, network.text->positions})));
    }
    const graph::Graph recorded = std::move(ops).finished(std::move(outputs));
    return {recorded.parameters, graph::flops(recorded), graph::memory(recorded, policy)};
}

graph::Shape bottleneck_shape(const Network& network) {
    const auto recorded = graph_of(network, input_shapes(network, true), TraceScope::encoder_only);
    return recorded->shape(recorded->outputs[0]);
}

}  // namespace atelier::networks
