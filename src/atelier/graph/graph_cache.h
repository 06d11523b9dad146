#pragma once

#include <memory>
#include <mutex>

#include "atelier/graph/builder.h"

namespace atelier::graph {

/// The graphs that one function has recorded, one for each combination of its inputs' shapes, the
/// batch excepted. Thread-safe.
class GraphCache {
public:
    /// The graph of `function`, always the same one, for inputs of these shapes and any batch.
    std::shared_ptr<const Graph> graph(std::vector<Shape> inputs, const Function& function);

private:
    struct Entry {
        std::vector<Shape> inputs;
        std::shared_ptr<const Graph> graph;
    };
    std::mutex mutex_;
    std::vector<Entry> entries_;  // the latest first
};

}  // namespace atelier::graph
