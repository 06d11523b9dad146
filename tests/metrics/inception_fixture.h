#pragma once

#include "atelier/core/json_file.h"
#include "atelier/models/state_dictionary.h"
#include "diffusion/golden_weights.h"

namespace atelier::metrics {

/// Inception-v3 weights generated from the tensors' names, as in scripts/make_inception_golden.py.
inline const models::NamedTensors& golden_inception_state() {
    static const models::NamedTensors state = [] {
        models::NamedTensors named;
        const nlohmann::json shapes =
            core::read_json(ATELIER_SOURCE_DIR "/tests/golden/inception_shapes.json");
        for (const auto& [name, shape] : shapes.items()) {
            named[name] = [name = name, shape = shape.get<std::vector<std::int64_t>>()] {
                const Tensor numbers = diffusion::golden_weights(name, shape);
                return name.ends_with("running_var") ? numbers + 1 : numbers;
            };
        }
        return named;
    }();
    return state;
}

}  // namespace atelier::metrics
