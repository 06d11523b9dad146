#pragma once

#include <concepts>
#include <span>
#include <type_traits>

#include "atelier/core/error.h"
#include "atelier/graph/graph.h"

namespace atelier::graph {

/// A list of op types.
template <class... Ops>
struct OpList {
    template <class Op>
    static constexpr bool contains = (std::is_same_v<Op, Ops> || ...);
};

/// An op's inputs as a backend represents them, and the shapes that the graph was recorded with.
template <class V>
struct Call {
    std::span<const V> in;
    const Graph& graph;
    const Node& node;

    const V& operator[](std::size_t i) const { return in[i]; }
    std::size_t count() const { return in.size(); }
    const Shape& shape_of(std::size_t i) const { return graph.shape(node.inputs[i]); }
    const Shape& shape() const { return node.shape; }  // of the result
};

/// Whether a backend whose values are of type V has a `lower` for an op.
template <class Backend, class Op, class V>
concept Lowers = requires(Backend& backend, const Op& op, const Call<V>& call) {
    { backend.lower(op, call) } -> std::convertible_to<V>;
};

/// Fails to compile, naming the op, where a backend neither has a `lower` for it nor lists it as
/// Unsupported.
template <class Backend, class V, class Op>
constexpr void expect_lowered() {
    static_assert(std::is_same_v<Op, Input> || Backend::Unsupported::template contains<Op> ||
                      Lowers<Backend, Op, V>,
                  "this Backend has no `lower` for this Op: write it, or list the op in the "
                  "backend's Unsupported");
}

/// The first op of `graph`, inside blocks too, that Backend lists as Unsupported; nullptr if it
/// can lower all of them.
template <class Backend>
const char* first_unsupported(const Graph& graph) {
    for (const Node& node : graph.nodes) {
        if (const auto* block = std::get_if<Block>(&node.op)) {
            if (const char* inner = first_unsupported<Backend>(*block->body)) return inner;
            continue;
        }
        const bool unsupported = std::visit(
            []<class Op>(const Op&) { return Backend::Unsupported::template contains<Op>; },
            node.op);
        if (unsupported) return name_of(node.op);
    }
    return nullptr;
}

/// Lowers the ops of `graph` in order with `backend`, whose values are of type V (a default V holds
/// nothing), and returns the outputs. A value is dropped after the last node that reads it. A
/// backend has, for every op, `V lower(const Op&, const Call<V>&)`, or lists the op in its type
/// `Unsupported`; the compiler names the backend and the op that has neither.
template <class V, class Backend>
std::vector<V> execute(const Graph& graph, Backend& backend, std::span<const V> inputs) {
    []<class... Ops>(std::variant<Ops...>*) {
        (expect_lowered<Backend, V, Ops>(), ...);
    }(static_cast<Op*>(nullptr));
    std::vector<V> values(graph.nodes.size());
    for (std::size_t i = 0; i < inputs.size(); ++i) values[graph.inputs[i].node] = inputs[i];
    std::vector<V> arguments;
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
        const Node& node = graph.nodes[i];
        if (!std::holds_alternative<Input>(node.op)) {
            for (const Value input : node.inputs) arguments.push_back(values[input.node]);
            const Call<V> call{arguments, graph, node};
            values[i] = std::visit(
                [&]<class Op>(const Op& op) -> V {
                    // NOLINTNEXTLINE(bugprone-branch-clone): the last branch is for the compiler
                    if constexpr (std::is_same_v<Op, Input>) return V();
                    else if constexpr (Backend::Unsupported::template contains<Op>)
                        core::fail("{} is an op that this backend lacks", name_of(node.op));
                    else if constexpr (Lowers<Backend, Op, V>) return backend.lower(op, call);
                    else return V();  // does not compile: expect_lowered
                },
                node.op);
            arguments.clear();
        }
        for (const Value value : node.last_reads) values[value.node] = V();
    }
    std::vector<V> outputs;
    for (const Value output : graph.outputs) outputs.push_back(values[output.node]);
    return outputs;
}

}  // namespace atelier::graph
