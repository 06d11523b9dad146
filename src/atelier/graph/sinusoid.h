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

/// The rows [height*width,features] that a GridSinusoid adds (Peebles and Xie 2023, as diffusers
/// computes them): sin(x f_k), cos(x f_k), sin(y f_k), cos(y f_k), a quarter of the features each,
/// with f_k = (1/10000)^(k/(features/4)) and, as there, x and y rounded to float32.
inline std::vector<float> grid_table(const GridSinusoid& layer, std::int64_t features) {
    const std::int64_t quarter = features / 4;
    const auto coordinate = [&](std::int64_t i, std::int64_t size) {
        const auto step =
            static_cast<float>(static_cast<double>(size) / static_cast<double>(layer.base));
        return static_cast<double>(static_cast<float>(i) / step);
    };
    std::vector<float> table(static_cast<std::size_t>(layer.height * layer.width * features));
    float* row = table.data();
    for (std::int64_t i = 0; i < layer.height; ++i) {
        for (std::int64_t j = 0; j < layer.width; ++j, row += features) {
            const double at[]{coordinate(j, layer.width), coordinate(i, layer.height)};
            for (std::int64_t k = 0; k < 2 * quarter; ++k) {
                const double angle =
                    at[k / quarter] * std::pow(1.0 / 10000, static_cast<double>(k % quarter) /
                                                                static_cast<double>(quarter));
                float* to = row + k / quarter * 2 * quarter + k % quarter;
                to[0] = static_cast<float>(std::sin(angle));
                to[quarter] = static_cast<float>(std::cos(angle));
            }
        }
    }
    return table;
}

}  // namespace atelier::graph
