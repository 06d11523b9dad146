#include "atelier/inference/computed_network.h"

#include <cstring>
#include <openvino/op/convert.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>

#include "atelier/backends/native/program_ops.h"
#include "atelier/backends/openvino/openvino_ops.h"
#include "atelier/backends/torch/low_rank.h"
#include "atelier/backends/torch/torch_ops.h"
#include "atelier/core/error.h"
#include "atelier/inference/native_network.h"

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

ComputedNetwork::ComputedNetwork(models::DiffusersWeights weights, graph::Function function,
                                 const Engine& engine, const backends::Parameters& deltas)
    : weights_(std::move(weights)),
      parameters_(weights_.map()),
      function_(std::move(function)),
      engine_(engine) {
    if (engine.precision == Engine::Precision::int8)
        throw core::UsageError("networks in diffusers' form compute in fp32 or bf16");
    if (!deltas.empty()) {
        backends::Parameters changed = deltas;
        changed.set_base(std::make_shared<const backends::Parameters>(parameters_));
        parameters_ = backends::merged(changed);
    }
    if (engine.kind == Engine::Kind::torch) parameters_ = in_memory(parameters_, engine);
}

std::vector<Tensor> ComputedNetwork::run(const std::vector<Tensor>& inputs) {
    at::NoGradGuard no_gradients;
    if (engine_.kind == Engine::Kind::torch) return run_torch(inputs);
    return engine_.kind == Engine::Kind::native ? run_native(inputs) : run_openvino(inputs);
}

std::vector<Tensor> ComputedNetwork::run_torch(const std::vector<Tensor>& inputs) const {
    const backends::LowPrecision precision(engine_.device.type(), engine_.compute().type);
    std::vector<Tensor> values;
    for (const Tensor& input : inputs) values.push_back(input.to(engine_.device));
    std::vector<Tensor> outputs = backends::TorchOps(parameters_).run(*recorded(inputs), values);
    for (Tensor& output : outputs) output = output.to(at::kCPU, at::kFloat).contiguous();
    return outputs;
}

std::vector<Tensor> ComputedNetwork::run_native(const std::vector<Tensor>& given) {
    std::vector<Tensor> inputs;
    for (const Tensor& input : given) inputs.push_back(input.to(at::kCPU, at::kFloat).contiguous());
    const std::shared_ptr<const graph::Graph> whole = recorded(given);
    const std::string lacking =
        whole->outputs.size() == 1 ? backends::unsupported_by_programs(*whole) : "several outputs";
    if (!lacking.empty())
        throw core::UsageError(fmt::format(
            "the native engine lacks {}, which this network needs; use --engine openvino or torch",
            lacking));
    graph::Shape shape = whole->shape(whole->outputs[0]);
    auto& network = programs_[sizes_of(inputs)];
    if (!network) {
        backends::ProgramOps backend(parameters_);
        std::vector<backends::ProgramValue> values;
        std::vector<std::int64_t> widths;
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const graph::Shape sample = inputs[i].sizes().slice(1).vec();
            values.push_back(backend.input(i, sample));
            widths.push_back(graph::elements(sample));
        }
        network = std::make_unique<NativeNetwork>(backend.compiled(*whole, values), widths,
                                                  graph::elements(shape));
    }
    const std::int64_t n = shape[0] = inputs[0].size(0);
    Tensor out = at::empty(shape, at::kFloat);
    const auto width = static_cast<std::size_t>(out.numel() / n);
    network->for_each_batch(
        n, [&](CompiledNetwork::Batch& batch, std::int64_t first, std::int64_t count) {
            const auto samples = static_cast<std::size_t>(count);
            for (std::size_t i = 0; i < inputs.size(); ++i) {
                const Tensor rows = inputs[i].narrow(0, first, count);
                std::copy_n(rows.const_data_ptr<float>(), rows.numel(), batch.input(i));
            }
            std::copy_n(batch.infer(), samples * width,
                        out.mutable_data_ptr<float>() + static_cast<std::size_t>(first) * width);
        });
    return {out};
}

std::shared_ptr<const graph::Graph> ComputedNetwork::recorded(
    const std::vector<Tensor>& inputs) const {
    std::vector<graph::Shape> shapes;
    for (const Tensor& input : inputs) shapes.push_back(input.sizes().vec());
    return graphs_->graph(std::move(shapes), function_);
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
    ov::ResultVector results;
    for (const auto& output : backend.run(*recorded(like), values)) {
        results.push_back(std::make_shared<ov::op::v0::Result>(
            std::make_shared<ov::op::v0::Convert>(output, ov::element::f32)));
    }
    weights_.release_pages();  // 16-bit weights were copied; views are read again at compilation
    return std::make_shared<ov::Model>(results, inputs, "network");
}

std::vector<Tensor> ComputedNetwork::run_openvino(const std::vector<Tensor>& given) {
    std::vector<Tensor> inputs;
    for (const Tensor& input : given) inputs.push_back(input.to(at::kCPU).contiguous());
    const auto write = [this, inputs](std::int64_t batch) { return graph(inputs, batch); };
    const GraphSource source{write, type_of(engine_), "", [this] { weights_.release_pages(); }};
    OpenVinoNetwork& network = compiled_.try_emplace(sizes_of(inputs), source).first->second;
    std::vector<Tensor> outputs(recorded(inputs)->outputs.size());
    network.requests(inputs[0].size(0), [&](ov::InferRequest& request, std::int64_t first,
                                            std::int64_t count) {
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const Tensor slice = inputs[i].narrow(0, first, count);
            std::memcpy(request.get_input_tensor(i).data(), slice.const_data_ptr(), slice.nbytes());
        }
        request.infer();
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            const ov::Tensor output = request.get_output_tensor(i);
            const ov::Shape sides = output.get_shape();
            if (!outputs[i].defined()) {
                std::vector<std::int64_t> shape(sides.begin(), sides.end());
                shape[0] = inputs[0].size(0);
                outputs[i] = at::empty(shape, at::kFloat);
            }
            Tensor slice = outputs[i].narrow(0, first, count);
            std::memcpy(slice.mutable_data_ptr(), output.data<float>(), slice.nbytes());
        }
    });
    return outputs;
}

}  // namespace atelier::inference
