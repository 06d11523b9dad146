#pragma once

#include <map>
#include <span>

#include "atelier/inference/engine.h"
#include "atelier/inference/openvino_network.h"
#include "atelier/ops/token_ops.h"

namespace atelier::inference {

/// A network of tensors by the batch, whatever it is for, ready to compute on an engine: Stable Diffusion's parts.
class ComputedNetwork {
public:
    using Forward = std::function<ops::Value(ops::TokenOps&, std::span<const ops::Value>)>;

    /// `forward` reads `parameters` (float32) through the speaker it is given. Throws core::UsageError for int8.
    ComputedNetwork(ops::Parameters parameters, Forward forward, const Engine& engine);

    /// `inputs` are [N,...] each, float32 or int64 -> the network's answer, float32 on the CPU. With OpenVINO, a graph is compiled for every new size.
    Tensor run(const std::vector<Tensor>& inputs);

private:
    Tensor run_torch(const std::vector<Tensor>& inputs) const;
    Tensor run_openvino(const std::vector<Tensor>& inputs);
    std::shared_ptr<ov::Model> graph(const std::vector<Tensor>& like, std::int64_t batch) const;

    ops::Parameters parameters_;
    Forward forward_;
    Engine engine_;
    std::map<std::string, OpenVinoNetwork> compiled_;  // by the inputs' sizes
};

}  // namespace atelier::inference
