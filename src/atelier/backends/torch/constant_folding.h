#pragma once

#include <variant>

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/graph/constants.h"

namespace atelier::backends {

/// A result of a lowered graph, or a constant, whose rows samples choose from.
template <class Result>
using Folded = std::variant<Result, Tensor>;

/// Lowers `graph` with `backend`, whose values are Folded<Result>: what depends only on inputs that
/// are tensors is computed now, with LibTorch, and enters the rest as constants. The backend lowers
/// no blocks.
template <class Result, class Backend>
std::vector<Folded<Result>> lower_folded(const graph::Graph& graph, const Parameters& parameters,
                                         Backend& backend,
                                         const std::vector<Folded<Result>>& inputs) {
    std::vector<std::int64_t> rows;
    std::vector<Tensor> constants;
    std::vector<Folded<Result>> varying;
    for (const Folded<Result>& input : inputs) {
        const auto* constant = std::get_if<Tensor>(&input);
        rows.push_back(constant ? constant->size(0) : 0);
        if (constant) constants.push_back(*constant);
        else varying.push_back(input);
    }
    const graph::SplitGraph split = graph::split_constants(graph, rows);
    for (Tensor& folded : TorchOps(parameters).run(split.constant, constants))
        varying.push_back(std::move(folded));
    return graph::execute<Folded<Result>>(split.rest, backend, varying);
}

}  // namespace atelier::backends
