#include "atelier/inference/computed_network.h"

#include <cstring>
#include <openvino/op/convert.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>

#include "atelier/backends/openvino/openvino_ops.h"
#include "atelier/backends/torch/torch_ops.h"
#include "atelier/core/error.h"

namespace atelier::inference {

namespace {

using Node = ov::op::v0::Parameter;

std::string sizes_of(const std::vector<Tensor>& inputs) {
    std::string text;
    for (const Tensor& input : inputs) text += core::to_string(input.sizes().slice(1).vec());
    return text;
}

ov::element::Type type_of(const Engine& engine) {
    return engine.precision == Engine::Precision::bf16 ? ov::element::bf16 : ov::element::f32;
}

/// Copies of all parameters, none of them mapped from a file: matrices in the engine's precision,
/// others in float32.
backends::Parameters in_memory(const backends::Parameters& mapped, const Engine& engine) {
    backends::Parameters read;
    for (const auto& [name, tensor] : mapped.tensors()) {
        const auto type =
            tensor.dim() >= 2 ? engine.compute().type.value_or(at::kFloat) : at::kFloat;
        read.set(name, tensor.to(engine.device, type, /*non_blocking=*/false, /*copy=*/true));
    }
    return read;
}

}  // namespace

void check_sizes(const Tensor& tensor, const char* name,
                 std::initializer_list<std::int64_t> expected) {
    bool fits = tensor.dim() == static_cast<std::int64_t>(expected.size()) + 1;
    std::int64_t axis = 1;
    for (const std::int64_t size : expected)
        fits = fits && (size < 0 || tensor.size(axis) == size), ++axis;
    if (!fits || tensor.numel() == 0) {
        core::fail("\"{}\" is {}; the model expects [N{}]", name,
                   core::to_string(tensor.sizes().vec()), [&] {
                       std::string text;
                       for (const std::int64_t size : expected)
                           text += size < 0 ? std::string(",*") : fmt::format(",{}", size);
                       return text;
                   }());
    }
}

void check_multiple(const Tensor& tensor, const char* name, std::int64_t factor) {
    if (tensor.size(2) % factor != 0 || tensor.size(3) % factor != 0) {
        core::fail("\"{}\" is {}; height and width must be multiples of {}", name,
                   core::to_string(tensor.sizes().vec()), factor);
    }
}

ComputedNetwork::ComputedNetwork(models::DiffusersWeights weights, graph::Body forward,
                                 const Engine& engine)
    : weights_(std::move(weights)),
      parameters_(weights_.map()),
      forward_(std::move(forward)),
      engine_(engine) {
    if (engine.precision == Engine::Precision::int8)
        throw core::UsageError("Stable Diffusion's networks compute in fp32 or bf16");
    if (engine.kind == Engine::Kind::native)
        throw core::UsageError("Stable Diffusion's networks compute on --engine openvino or torch");
    if (engine.kind == Engine::Kind::torch) parameters_ = in_memory(parameters_, engine);
}

Tensor ComputedNetwork::run(const std::vector<Tensor>& inputs) {
    at::NoGradGuard no_gradients;
    return engine_.kind == Engine::Kind::torch ? run_torch(inputs) : run_openvino(inputs);
}

Tensor ComputedNetwork::run_torch(const std::vector<Tensor>& inputs) const {
    const backends::LowPrecision precision(engine_.device.type(), engine_.compute().type);
    std::vector<Tensor> values;
    for (const Tensor& input : inputs) values.push_back(input.to(engine_.device));
    return backends::TorchOps(parameters_)
        .run(*recorded(inputs), values)[0]
        .to(at::kCPU, at::kFloat)
        .contiguous();
}

std::shared_ptr<const graph::Graph> ComputedNetwork::recorded(
    const std::vector<Tensor>& inputs) const {
    std::vector<graph::Shape> shapes;
    for (const Tensor& input : inputs) shapes.push_back(input.sizes().vec());
    return graphs_->graph(std::move(shapes),
                          [&](graph::Builder& ops, std::span<const graph::Value> in) {
                              return std::vector{forward_(ops, in)};
                          });
}

std::shared_ptr<ov::Model> ComputedNetwork::graph(const std::vector<Tensor>& like,
                                                  std::int64_t batch) const {
    ov::ParameterVector inputs;
    std::vector<backends::OpenVinoValue> values;
    for (const Tensor& input : like) {
        ov::Shape shape(input.sizes().begin(), input.sizes().end());
        shape[0] = static_cast<std::size_t>(batch);
        inputs.push_back(std::make_shared<Node>(
            input.scalar_type() == at::kLong ? ov::element::i64 : ov::element::f32, shape));
        values.emplace_back(inputs.back()->output(0));
    }
    backends::OpenVinoOps backend(parameters_, {.precision = type_of(engine_)});
    const auto output = backend.run(*recorded(like), values)[0];
    weights_.release_pages();  // 16-bit weights were copied; views are read again at compilation
    const auto result = std::make_shared<ov::op::v0::Result>(
        std::make_shared<ov::op::v0::Convert>(output, ov::element::f32));
    return std::make_shared<ov::Model>(ov::ResultVector{result}, inputs, "network");
}

Tensor ComputedNetwork::run_openvino(const std::vector<Tensor>& given) {
    std::vector<Tensor> inputs;
    for (const Tensor& input : given) inputs.push_back(input.to(at::kCPU).contiguous());
    const auto write = [this, inputs](std::int64_t batch) { return graph(inputs, batch); };
    const GraphSource source{write, type_of(engine_), "", [this] { weights_.release_pages(); }};
    OpenVinoNetwork& network = compiled_.try_emplace(sizes_of(inputs), source).first->second;
    Tensor out;
    network.requests(inputs[0].size(0), [&](ov::InferRequest& request, std::int64_t first,
                                            std::int64_t count) {
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const Tensor slice = inputs[i].narrow(0, first, count);
            std::memcpy(request.get_input_tensor(i).data(), slice.const_data_ptr(), slice.nbytes());
        }
        request.infer();
        const ov::Tensor output = request.get_output_tensor();
        if (!out.defined()) {
            std::vector<std::int64_t> shape(output.get_shape().begin(), output.get_shape().end());
            shape[0] = inputs[0].size(0);
            out = at::empty(shape, at::kFloat);
        }
        Tensor slice = out.narrow(0, first, count);
        std::memcpy(slice.mutable_data_ptr(), output.data<float>(), slice.nbytes());
    });
    return out;
}

}  // namespace atelier::inference
