#include "atelier/graph/graph.h"

#include <functional>
#include <numeric>

namespace atelier::graph {

std::int64_t elements(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

void find_last_reads(Graph& graph) {
    std::vector<bool> read_later(graph.nodes.size());
    const auto read = [&](Value value) {
        const bool before = read_later[value.node];
        read_later[value.node] = true;
        return before;
    };
    for (const Value output : graph.outputs) read(output);
    for (std::size_t i = graph.nodes.size(); i-- > 0;) {
        Node& node = graph.nodes[i];
        node.last_reads.clear();
        const Value own{static_cast<std::uint32_t>(i)};
        if (!read(own)) node.last_reads.push_back(own);
        for (const Value input : node.inputs) {
            if (!read(input)) node.last_reads.push_back(input);
        }
    }
}

}  // namespace atelier::graph
