#pragma once

#include <string>

#include "atelier/ops/ops.h"
#include "atelier/ops/parameters.h"

namespace atelier::ops {

/// Activation checkpointing: runs `body` on `inputs` (tensors) with TorchOps over `parameters` and
/// `prefix`; autograd keeps only the inputs. The backward pass runs `body` again, in the same
/// precision, and differentiates that. Does not support double backward: throws core::Error when a
/// second-order gradient is requested.
Value recomputed(std::span<const Value> inputs, const Ops::Body& body, const Parameters& parameters,
                 const std::string& prefix);

}  // namespace atelier::ops
