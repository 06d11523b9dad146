#pragma once

#include "atelier/inference/engine.h"
#include "atelier/inference/openvino_network.h"

namespace atelier::inference {

/// The network of `model`, which must outlive the result, compiled by OpenVINO for any noise level,
/// with float32 inputs x, c_noise and, when it is conditional, labels, and a float32 output.
std::unique_ptr<CompiledNetwork> openvino_network(const models::Model& model,
                                                  Engine::Precision precision);

/// The same for the model's highest noise level only and samples of `classes`, with inputs x and,
/// when it is conditional, rows. What depends only on the level, and on the class where that pays,
/// is folded into constants when the graph is built.
std::unique_ptr<CompiledNetwork> openvino_one_level(const models::Model& model,
                                                    const std::vector<std::int64_t>& classes,
                                                    Engine::Precision precision);

}  // namespace atelier::inference
