#pragma once

#include "atelier/inference/engine.h"
#include "atelier/inference/openvino_network.h"

namespace atelier::inference {

/// A model's network, which must outlive the result, for OpenVINO, at any noise level: x, c_noise and, where it is conditional, labels. Float32 on the outside.
std::unique_ptr<CompiledNetwork> openvino_network(const models::Model& model, Engine::Precision precision);

/// The same at the model's highest noise level alone, for samples of `classes`: x and, where it is conditional, rows. All that follows from the level, and from a class where that pays, is
/// computed when the graph is written.
std::unique_ptr<CompiledNetwork> openvino_one_level(const models::Model& model, const std::vector<std::int64_t>& classes, Engine::Precision precision);

}  // namespace atelier::inference
