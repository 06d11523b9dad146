#pragma once

#include <span>
#include <string>

#include "atelier/backends/torch/parameters.h"
#include "atelier/graph/graph.h"

namespace atelier::backends {

/// Activation checkpointing: runs `block` on `inputs` with TorchOps over `parameters` and `prefix`;
/// autograd keeps only the inputs. The backward pass runs it again, in the same precision, and
/// differentiates that. Does not support double backward: throws core::Error when a second-order
/// gradient is requested.
Tensor recomputed(const graph::Block& block, std::span<const Tensor> inputs,
                  const Parameters& parameters, const std::string& prefix);

}  // namespace atelier::backends
