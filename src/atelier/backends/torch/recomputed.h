#pragma once

#include <string>

#include "atelier/backends/torch/parameters.h"
#include "atelier/graph/ops.h"

namespace atelier::backends {

/// Activation checkpointing: runs `body` on `inputs` (tensors) with TorchOps over `parameters` and
/// `prefix`; autograd keeps only the inputs. The backward pass runs `body` again, in the same
/// precision, and differentiates that. Does not support double backward: throws core::Error when a
/// second-order gradient is requested.
graph::Value recomputed(std::span<const graph::Value> inputs, const graph::Ops::Body& body,
                        const Parameters& parameters, const std::string& prefix);

}  // namespace atelier::backends
