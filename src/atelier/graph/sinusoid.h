#pragma once

#include <cmath>
#include <vector>

#include "atelier/graph/graph.h"

namespace atelier::graph {

/// The frequencies defined in graph.h, for backends that write them as constants.
inline std::vector<float> frequencies_of(const Sinusoid& layer) {
    const auto half = static_cast<std::size_t>(layer.width / 2);
    const auto last = static_cast<double>(layer.endpoint ? half - 1 : half);
    std::vector<float> frequencies(half);
    for (std::size_t i = 0; i < half; ++i)
        frequencies[i] = static_cast<float>(std::pow(1.0 / 10000, static_cast<double>(i) / last));
    return frequencies;
}

}  // namespace atelier::graph
