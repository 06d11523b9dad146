#pragma once

#include <span>

#include "atelier/graph/graph.h"

/// Folding what is constant, such as everything that depends on the noise level alone where that is
/// fixed.
namespace atelier::graph {

/// The same graph with the nodes of blocks in place of blocks.
Graph without_blocks(const Graph& graph);

/// A graph in two halves, without blocks.
struct SplitGraph {
    /// What is computed once. Its inputs are the graph's constant inputs, in their order; its
    /// outputs are those of its values that `rest` reads.
    Graph constant;
    /// What is computed for every batch. Its inputs are the graph's other inputs, in their order,
    /// then the outputs of `constant`.
    Graph rest;
};

/// Splits `graph` into what depends only on constants and the rest. `rows` has an entry per input:
/// 0 where it varies, otherwise the number of rows of a constant, which samples choose from. A
/// linear layer on more rows than it has columns is not folded, since its results would be larger
/// than its weights.
SplitGraph split_constants(const Graph& graph, std::span<const std::int64_t> rows);

}  // namespace atelier::graph
