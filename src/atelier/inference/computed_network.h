#pragma once

#include <map>
#include <span>

#include "atelier/graph/graph_cache.h"
#include "atelier/inference/engine.h"
#include "atelier/inference/openvino_network.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::inference {

/// Throw core::Error unless `tensor` is [N, expected...], where -1 is any size, and unless its
/// height and width are multiples of `factor`.
void check_sizes(const Tensor& tensor, const char* name,
                 std::initializer_list<std::int64_t> expected);
void check_multiple(const Tensor& tensor, const char* name, std::int64_t factor);

/// Any function of batched tensors, such as a part of Stable Diffusion, with its weights on an
/// engine.
class ComputedNetwork {
public:
    /// `forward` records the function, whose parameters are read from `weights`. OpenVINO compiles
    /// from the mapped files; for LibTorch the matrices are copied into memory in the engine's
    /// precision. Throws core::UsageError for int8 and for the native engine.
    ComputedNetwork(models::DiffusersWeights weights, graph::Body forward, const Engine& engine);

    /// `inputs` are [N,...] each, float32 or int64 -> the network's output, float32 on the CPU.
    /// OpenVINO compiles a graph for every new combination of sizes.
    Tensor run(const std::vector<Tensor>& inputs);

private:
    Tensor run_torch(const std::vector<Tensor>& inputs) const;
    Tensor run_openvino(const std::vector<Tensor>& inputs);
    std::shared_ptr<const graph::Graph> recorded(const std::vector<Tensor>& inputs) const;
    std::shared_ptr<ov::Model> graph(const std::vector<Tensor>& like, std::int64_t batch) const;

    models::DiffusersWeights weights_;
    backends::Parameters parameters_;
    graph::Body forward_;
    std::unique_ptr<graph::GraphCache> graphs_ = std::make_unique<graph::GraphCache>();
    Engine engine_;
    std::map<std::string, OpenVinoNetwork> compiled_;  // by the inputs' sizes
};

}  // namespace atelier::inference
