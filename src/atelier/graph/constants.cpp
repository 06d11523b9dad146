#include "atelier/graph/constants.h"

#include <algorithm>

namespace atelier::graph {

namespace {

/// Adds a copy of `node` that reads `inputs`.
Value append(Graph& graph, const Node& node, std::vector<Value> inputs) {
    graph.nodes.push_back({node.op, std::move(inputs), node.shape});
    return {static_cast<std::uint32_t>(graph.nodes.size() - 1)};
}

Value append_input(Graph& graph, const Shape& shape) {
    graph.inputs.push_back(append(graph, {Input{}, {}, shape}, {}));
    return graph.inputs.back();
}

std::vector<Value> mapped(const std::vector<Value>& values, const std::vector<Value>& to) {
    std::vector<Value> result;
    for (const Value value : values) result.push_back(to[value.node]);
    return result;
}

/// Appends the nodes of `from`, whose inputs are already `inputs` of `to`; returns its outputs.
std::vector<Value> append_nodes(Graph& to, const Graph& from, const std::vector<Value>& inputs) {
    std::vector<Value> copies(from.nodes.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) copies[from.inputs[i].node] = inputs[i];
    for (std::size_t i = 0; i < from.nodes.size(); ++i) {
        const Node& node = from.nodes[i];
        if (copies[i].has_value()) continue;
        std::vector<Value> read = mapped(node.inputs, copies);
        const auto* block = std::get_if<Block>(&node.op);
        copies[i] =
            block ? append_nodes(to, *block->body, read)[0] : append(to, node, std::move(read));
    }
    return mapped(from.outputs, copies);
}

}  // namespace

Graph without_blocks(const Graph& graph) {
    Graph flat;
    std::vector<Value> inputs;
    for (const Value input : graph.inputs) inputs.push_back(append_input(flat, graph.shape(input)));
    flat.outputs = append_nodes(flat, graph, inputs);
    flat.parameters = graph.parameters;
    find_last_reads(flat);
    return flat;
}

namespace {

/// The rows of every value of a graph without blocks: 0 where it varies.
std::vector<std::int64_t> rows_of_values(const Graph& graph, std::span<const std::int64_t> inputs) {
    std::vector<std::int64_t> rows(graph.nodes.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) rows[graph.inputs[i].node] = inputs[i];
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
        const Node& node = graph.nodes[i];
        if (node.inputs.empty()) continue;
        std::int64_t most = 0;
        bool varies = false;
        for (const Value input : node.inputs) {
            varies = varies || rows[input.node] == 0;
            most = std::max(most, rows[input.node]);
        }
        const bool grows =
            std::holds_alternative<Linear>(node.op) && most > graph.shape(node.inputs[0])[1];
        rows[i] = varies || grows ? 0 : most;
    }
    return rows;
}

}  // namespace

SplitGraph split_constants(const Graph& graph, std::span<const std::int64_t> rows) {
    const Graph flat = without_blocks(graph);
    const std::vector<std::int64_t> rows_of = rows_of_values(flat, rows);
    SplitGraph split;
    std::vector<Value> constants(flat.nodes.size()), values(flat.nodes.size());
    for (const Value input : flat.inputs) {
        const bool constant = rows_of[input.node] > 0;
        (constant ? constants : values)[input.node] =
            append_input(constant ? split.constant : split.rest, flat.shape(input));
    }
    for (std::size_t i = 0; i < flat.nodes.size(); ++i) {
        const Node& node = flat.nodes[i];
        if (rows_of[i] > 0 && !constants[i].has_value())
            constants[i] = append(split.constant, node, mapped(node.inputs, constants));
    }
    // Inputs of the rest come before its other nodes.
    const auto need = [&](Value value) {
        if (rows_of[value.node] == 0 || values[value.node].has_value()) return;
        split.constant.outputs.push_back(constants[value.node]);
        values[value.node] = append_input(split.rest, flat.shape(value));
    };
    for (std::size_t i = 0; i < flat.nodes.size(); ++i) {
        if (rows_of[i] > 0) continue;
        for (const Value input : flat.nodes[i].inputs) need(input);
    }
    for (const Value output : flat.outputs) need(output);
    for (std::size_t i = 0; i < flat.nodes.size(); ++i) {
        const Node& node = flat.nodes[i];
        if (rows_of[i] == 0 && !values[i].has_value())
            values[i] = append(split.rest, node, mapped(node.inputs, values));
    }
    split.rest.outputs = mapped(flat.outputs, values);
    split.constant.parameters = split.rest.parameters = flat.parameters;
    find_last_reads(split.constant);
    find_last_reads(split.rest);
    return split;
}

}  // namespace atelier::graph
