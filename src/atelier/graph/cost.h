#pragma once

#include "atelier/graph/graph.h"

/// What a recorded graph costs, without computing it.
namespace atelier::graph {

/// The multiply-adds of convolutions, linear layers and attention, two operations each.
double flops(const Graph& graph);

/// Which activations the backend whose memory is estimated retains.
struct ActivationPolicy {
    bool backward = false;    // retain the values that the backward pass reads
    bool recompute = false;   // retain only the inputs of blocks
    double element_size = 4;  // bytes per element that convolutions, linear layers and attention
                              // read and write: 2 under autocast
    bool fused_norm =
        true;  // TorchOps' fused CPU kernel; otherwise LibTorch's operations, in float32
};

/// Activation memory of an evaluation, in bytes.
struct MemoryEstimate {
    double retained = 0;  // by values that are alive at this point
    double peak = 0;      // maximum of `retained` so far
    double largest = 0;   // single value
    double block = 0;     // the maximum that a block retains while it is recomputed
    /// After each layer: what is retained for the backward pass, and the number of parameters so
    /// far.
    struct Layer {
        double retained, parameters;
    };
    std::vector<Layer> layers{};
};

/// The memory of the graph's values, inputs excepted, while execute() holds them or, under
/// ActivationPolicy::backward, LibTorch's autograd does.
MemoryEstimate memory(const Graph& graph, const ActivationPolicy& policy);

}  // namespace atelier::graph
