#pragma once

#include <map>
#include <span>

#include "atelier/inference/engine.h"
#include "atelier/inference/openvino_network.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/ops/ops.h"

namespace atelier::inference {

/// Throw core::Error unless `tensor` is [N, wanted...], where -1 is any size; and unless its height and width are multiples of `factor`.
void check_sizes(const Tensor& tensor, const char* name, std::initializer_list<std::int64_t> wanted);
void check_multiple(const Tensor& tensor, const char* name, std::int64_t factor);

/// A network of tensors by the batch, whatever it is for, ready to compute on an engine: Stable Diffusion's parts.
class ComputedNetwork {
public:
    using Forward = std::function<ops::Value(ops::Ops&, std::span<const ops::Value>)>;

    /// `forward` reads `weights` through the speaker it is given. OpenVINO makes what it computes with of the mapped files, LibTorch's matrices are in memory in the
    /// engine's precision. Throws core::UsageError for int8.
    ComputedNetwork(models::DiffusersWeights weights, Forward forward, const Engine& engine);

    /// `inputs` are [N,...] each, float32 or int64 -> the network's answer, float32 on the CPU. With OpenVINO, a graph is compiled for every new size.
    Tensor run(const std::vector<Tensor>& inputs);

private:
    Tensor run_torch(const std::vector<Tensor>& inputs) const;
    Tensor run_openvino(const std::vector<Tensor>& inputs);
    std::shared_ptr<ov::Model> graph(const std::vector<Tensor>& like, std::int64_t batch) const;

    models::DiffusersWeights weights_;
    ops::Parameters parameters_;
    Forward forward_;
    Engine engine_;
    std::map<std::string, OpenVinoNetwork> compiled_;  // by the inputs' sizes
};

}  // namespace atelier::inference
