#pragma once

#include <string>

#include "atelier/ops/ops.h"
#include "atelier/ops/parameters.h"

namespace atelier::ops {

/// Activation checkpointing: `body` of `inputs` (tensors) by TorchOps over `parameters` and `prefix`, of which autograd keeps the inputs alone. The backward
/// pass runs `body` again, in the precision of now, and differentiates that. Its gradients have none themselves: throws core::Error where a slope of
/// a slope is asked for.
Value recomputed(std::span<const Value> inputs, const Ops::Body& body, const Parameters& parameters, const std::string& prefix);

}  // namespace atelier::ops
