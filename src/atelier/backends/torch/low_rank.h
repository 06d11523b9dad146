#pragma once

#include "atelier/backends/torch/parameters.h"

/// Low-rank adaptation (Hu et al. 2022, LoRA): for a layer's weight W [O,...] of a frozen base
/// there are a filter down [rank,...] and a matrix up [O,rank], and the layer computes with W + up
/// down. They are named "<layer>.lora_down.weight" and "<layer>.lora_up.weight"; biases, norms and
/// embedding tables have none.
namespace atelier::backends {

/// The deltas of every matrix and filter among `specs`, each of at most the matrix's own rank.
/// Initialised so that nothing changes at first: up is zero.
std::vector<graph::ParameterSpec> low_rank_specs(std::span<const graph::ParameterSpec> specs,
                                                 std::int64_t rank);

/// Whether `layer` has deltas.
bool is_low_rank(const Parameters& parameters, const std::string& layer);

/// Base and deltas merged into plain weights, for code that does not know deltas; returns
/// `parameters` itself where there is no base. Throws core::Error when a delta has no base weight.
Parameters merged(const Parameters& parameters);

}  // namespace atelier::backends
