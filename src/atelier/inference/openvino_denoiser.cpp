#include "atelier/inference/openvino_denoiser.h"

#include <ATen/Parallel.h>

#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>
#include <openvino/runtime/core.hpp>

#include "atelier/core/error.h"
#include "atelier/ops/openvino_ops.h"
#include "atelier/ops/torch_ops.h"

namespace atelier::inference {

namespace {

ov::Core& core() {
    static ov::Core only;
    return only;
}

using Parameter = std::shared_ptr<ov::op::v0::Parameter>;

Parameter parameter(std::int64_t batch, const ops::Shape& sample, const std::string& name) {
    ov::Shape shape{static_cast<std::size_t>(batch)};
    shape.insert(shape.end(), sample.begin(), sample.end());
    auto node = std::make_shared<ov::op::v0::Parameter>(ov::element::f32, shape);
    node->set_friendly_name(name);
    return node;
}

/// The network as a graph of x [N,...], c_noise [N] and, where it is conditional, labels [N,classes].
std::shared_ptr<ov::Model> graph_of(const models::Model& model, std::int64_t batch) {
    const networks::Network& network = model.network;
    ov::ParameterVector inputs{parameter(batch, network.data_shape, "x"), parameter(batch, {}, "c_noise")};
    if (network.classes > 0) inputs.push_back(parameter(batch, {network.classes}, "labels"));
    const auto value = [&](std::size_t i) { return ops::value_of(inputs[i]->output(0)); };
    ops::OpenVinoOps speaker(model.parameters);
    networks::Inputs named{value(0), value(1), std::nullopt};
    if (network.classes > 0) named.labels = value(2);
    const ov::Output<ov::Node> raw = ops::node_of(network.forward(speaker, named).raw);
    return std::make_shared<ov::Model>(ov::ResultVector{std::make_shared<ov::op::v0::Result>(raw)}, inputs, network.architecture);
}

}  // namespace

OpenVinoDenoiser::OpenVinoDenoiser(const models::Model& model, bool bfloat16) : model_(model), bfloat16_(bfloat16) {}

ov::InferRequest& OpenVinoDenoiser::request_for(std::int64_t batch) const {
    const auto found = requests_.find(batch);
    if (found != requests_.end()) return found->second;
    try {
        ov::CompiledModel compiled = core().compile_model(
            graph_of(model_, batch), "CPU",
            {ov::hint::inference_precision(bfloat16_ ? ov::element::bf16 : ov::element::f32), ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
             ov::num_streams(1), ov::inference_num_threads(at::get_num_threads())});
        return requests_.emplace(batch, compiled.create_infer_request()).first->second;
    } catch (const ov::Exception& error) {
        core::fail("OpenVINO cannot compile this {}: {}", model_.network.architecture, error.what());
    }
}

Tensor OpenVinoDenoiser::denoise(const Tensor& x_t, const Tensor& sigma, const diffusion::Condition& condition) const {
    const diffusion::Preconditioning with = diffusion::edm_preconditioning(sigma, model_.sigma_data);
    const networks::Inputs inputs = diffusion::network_inputs(model_.network, x_t, with, condition);
    std::vector<Tensor> given{ops::tensor_of(inputs.x).contiguous(), ops::tensor_of(inputs.c_noise).contiguous()};
    if (model_.network.classes > 0) given.push_back(ops::tensor_of(*inputs.labels).contiguous());
    const Tensor raw = at::empty(x_t.sizes(), at::kFloat);
    ov::InferRequest& request = request_for(x_t.size(0));
    for (std::size_t i = 0; i < given.size(); ++i) request.set_input_tensor(i, ops::view_of(given[i]));
    request.set_output_tensor(ops::view_of(raw));
    request.infer();
    return diffusion::along(with.c_skip, x_t) * x_t + diffusion::along(with.c_out, x_t) * raw;
}

}  // namespace atelier::inference
