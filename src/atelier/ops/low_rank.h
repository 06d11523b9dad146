#pragma once

#include "atelier/ops/parameters.h"

/// Low-rank adaptation (Hu et al. 2022, LoRA): beside a layer's weight W [O,...] of a base that stays as it is stand a filter down, [rank,...], and a matrix up,
/// [O,rank], and the layer computes with W + up down. They are named "<layer>.lora_down.weight" and "<layer>.lora_up.weight"; biases, norms and tables have none.
namespace atelier::ops {

/// The deltas of every matrix and filter among `specs`; the rank of one is at most its own. Drawn so that nothing changes at first: up is zero.
std::vector<ParameterSpec> low_rank_specs(std::span<const ParameterSpec> specs, std::int64_t rank);

/// Whether `layer` has deltas.
bool is_low_rank(const Parameters& parameters, const std::string& layer);

/// Base and deltas as one map of plain weights, for what knows no deltas; itself, where there is no base. Throws core::Error when a delta has no weight under it.
Parameters merged(const Parameters& parameters);

}  // namespace atelier::ops
