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
    /// `function` records the function, whose parameters are read from `weights`, with `deltas`
    /// merged: low-rank ones, or tensors in the place of others. OpenVINO compiles from the mapped
    /// files; for LibTorch the matrices are copied into memory in the engine's precision. Throws
    /// core::UsageError for int8.
    ComputedNetwork(models::DiffusersWeights weights, graph::Function function,
                    const Engine& engine, const backends::Parameters& deltas = {});

    /// `inputs` are [N,...] each, float32 or int64 -> the network's outputs, float32 on the CPU.
    /// OpenVINO and the native engine compile a graph for every new combination of sizes. Throws
    /// core::UsageError where the native engine lacks an op.
    std::vector<Tensor> run(const std::vector<Tensor>& inputs);

private:
    std::vector<Tensor> run_torch(const std::vector<Tensor>& inputs) const;
    std::vector<Tensor> run_openvino(const std::vector<Tensor>& inputs);
    std::vector<Tensor> run_native(const std::vector<Tensor>& inputs);
    std::shared_ptr<const graph::Graph> recorded(const std::vector<Tensor>& inputs) const;
    std::shared_ptr<ov::Model> graph(const std::vector<Tensor>& like, std::int64_t batch) const;

    models::DiffusersWeights weights_;
    backends::Parameters parameters_;
    graph::Function function_;
    std::unique_ptr<graph::GraphCache> graphs_ = std::make_unique<graph::GraphCache>();
    Engine engine_;
    std::map<std::string, OpenVinoNetwork> compiled_;                   // by the inputs' sizes
    std::map<std::string, std::unique_ptr<CompiledNetwork>> programs_;  // the native engine's
};

}  // namespace atelier::inference
