#include "atelier/inference/computed_network.h"

#include <cstring>
#include <openvino/op/convert.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>

#include "atelier/core/error.h"
#include "atelier/ops/openvino_token_ops.h"
#include "atelier/ops/torch_token_ops.h"

namespace atelier::inference {

namespace {

using Node = ov::op::v0::Parameter;

std::string sizes_of(const std::vector<Tensor>& inputs) {
    std::string text;
    for (const Tensor& input : inputs) text += core::to_string(input.sizes().slice(1).vec());
    return text;
}

ov::element::Type type_of(const Engine& engine) { return engine.precision == Engine::Precision::bf16 ? ov::element::bf16 : ov::element::f32; }

}  // namespace

ComputedNetwork::ComputedNetwork(ops::Parameters parameters, Forward forward, const Engine& engine)
    : parameters_(std::move(parameters)), forward_(std::move(forward)), engine_(engine) {
    if (engine.precision == Engine::Precision::int8) throw core::UsageError("Stable Diffusion's networks compute in fp32 or bf16");
    if (engine.kind == Engine::Kind::torch) parameters_ = parameters_.to(engine.device);
}

Tensor ComputedNetwork::run(const std::vector<Tensor>& inputs) {
    at::NoGradGuard no_gradients;
    return engine_.kind == Engine::Kind::torch ? run_torch(inputs) : run_openvino(inputs);
}

Tensor ComputedNetwork::run_torch(const std::vector<Tensor>& inputs) const {
    const ops::LowPrecision precision(engine_.device.type(), engine_.compute().type);
    ops::TorchTokenOps speaker(parameters_);
    std::vector<ops::Value> values;
    for (const Tensor& input : inputs) values.emplace_back(input.to(engine_.device));
    return ops::tensor_of(forward_(speaker, values)).to(at::kCPU, at::kFloat).contiguous();
}

std::shared_ptr<ov::Model> ComputedNetwork::graph(const std::vector<Tensor>& like, std::int64_t batch) const {
    ov::ParameterVector inputs;
    std::vector<ops::Value> values;
    for (const Tensor& input : like) {
        ov::Shape shape(input.sizes().begin(), input.sizes().end());
        shape[0] = static_cast<std::size_t>(batch);
        inputs.push_back(std::make_shared<Node>(input.scalar_type() == at::kLong ? ov::element::i64 : ov::element::f32, shape));
        values.push_back(ops::value_of(inputs.back()->output(0)));
    }
    ops::OpenVinoTokenOps speaker(parameters_, {.precision = type_of(engine_)});
    const auto answer = ops::node_of(forward_(speaker, values));
    const auto result = std::make_shared<ov::op::v0::Result>(std::make_shared<ov::op::v0::Convert>(answer, ov::element::f32));
    return std::make_shared<ov::Model>(ov::ResultVector{result}, inputs, "network");
}

Tensor ComputedNetwork::run_openvino(const std::vector<Tensor>& given) {
    std::vector<Tensor> inputs;
    for (const Tensor& input : given) inputs.push_back(input.to(at::kCPU).contiguous());
    const auto write = [this, inputs](std::int64_t batch) { return graph(inputs, batch); };
    const Graphs graphs{write, type_of(engine_), "", {}};
    OpenVinoNetwork& network = compiled_.try_emplace(sizes_of(inputs), graphs).first->second;
    Tensor out;
    network.in_pieces(inputs[0].size(0), [&](ov::InferRequest& request, std::int64_t first, std::int64_t count) {
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const Tensor piece = inputs[i].narrow(0, first, count);
            std::memcpy(request.get_input_tensor(i).data(), piece.const_data_ptr(), piece.nbytes());
        }
        request.infer();
        const ov::Tensor answer = request.get_output_tensor();
        if (!out.defined()) {
            std::vector<std::int64_t> shape(answer.get_shape().begin(), answer.get_shape().end());
            shape[0] = inputs[0].size(0);
            out = at::empty(shape, at::kFloat);
        }
        Tensor piece = out.narrow(0, first, count);
        std::memcpy(piece.mutable_data_ptr(), answer.data<float>(), piece.nbytes());
    });
    return out;
}

}  // namespace atelier::inference
