#include "atelier/inference/openvino_denoiser.h"

#include <fmt/ranges.h>

#include <openvino/op/convert.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>

#include "atelier/core/error.h"
#include "atelier/inference/one_step_factors.h"
#include "atelier/ops/openvino_ops.h"

namespace atelier::inference {

namespace {

using Parameter = std::shared_ptr<ov::op::v0::Parameter>;

Parameter parameter(std::int64_t batch, const ops::Shape& sample, const std::string& name, ov::element::Type type = ov::element::f32) {
    ov::Shape shape{static_cast<std::size_t>(batch)};
    shape.insert(shape.end(), sample.begin(), sample.end());
    auto node = std::make_shared<ov::op::v0::Parameter>(type, shape);
    node->set_friendly_name(name);
    return node;
}

/// The shape of a sample's labels.
ops::Shape one_label(const networks::Network& network) {
    const ops::Shape shape = network.label_shape(1);
    return {shape.begin() + 1, shape.end()};
}

std::shared_ptr<ov::Model> graph_of(const models::Model& model, ops::Ops& speaker, const networks::Inputs& named, const ov::ParameterVector& inputs) {
    const ov::Output<ov::Node> raw = ops::node_of(model.network.forward(speaker, named).raw);
    const auto result = std::make_shared<ov::op::v0::Result>(std::make_shared<ov::op::v0::Convert>(raw, ov::element::f32));
    return std::make_shared<ov::Model>(ov::ResultVector{result}, inputs, model.network.architecture);
}

/// x [N,...], c_noise [N] and, where the network is conditional, labels [N,classes] or [N,tokens,classes].
std::shared_ptr<ov::Model> graph_for_any_level(const models::Model& model, const ops::OpenVinoOps::Options& options, std::int64_t batch) {
    const networks::Network& network = model.network;
    ov::ParameterVector inputs{parameter(batch, network.data_shape, "x"), parameter(batch, {}, "c_noise")};
    if (network.classes > 0) inputs.push_back(parameter(batch, one_label(network), "labels"));
    const auto value = [&](std::size_t i) { return ops::value_of(inputs[i]->output(0)); };
    networks::Inputs named{value(0), value(1), std::nullopt};
    if (network.classes > 0) named.labels = value(2);
    ops::OpenVinoOps speaker(model.parameters, options);
    return graph_of(model, speaker, named, inputs);
}

/// x [N,...] and, where the network is conditional, rows [N] of `classes`.
std::shared_ptr<ov::Model> graph_for_one_level(const models::Model& model, const std::vector<std::int64_t>& classes, ops::OpenVinoOps::Options options,
                                               std::int64_t batch) {
    const networks::Network& network = model.network;
    ov::ParameterVector inputs{parameter(batch, network.data_shape, "x")};
    const Tensor level = diffusion::precondition(at::full({1}, model.range.sigma_max, at::kFloat), model.scheme).c_noise;
    networks::Inputs named{ops::value_of(inputs[0]->output(0)), level, std::nullopt};
    if (network.classes > 0) {
        inputs.push_back(parameter(batch, {}, "rows", ov::element::i32));
        options.rows = inputs[1]->output(0);
        named.labels = diffusion::one_hot(classes, network.classes).labels;
    }
    ops::OpenVinoOps speaker(model.parameters, options);
    return graph_of(model, speaker, named, inputs);
}

std::vector<std::int64_t> in_order(std::vector<std::int64_t> numbers) {
    std::ranges::sort(numbers);
    return numbers;
}

/// Names a model's graphs. Larger networks have none: for them, reading a compiled one saves little over compiling it anew.
std::string identity_of(const models::Model& model, const std::string& form) {
    constexpr std::int64_t largest = 16'000'000;  // parameters
    if (model.parameters.count() > largest) return "";
    return fmt::format("{}\n{}\n{}", ops::hash_of(model.parameters), model.config.dump(), form);
}

/// How the speaker writes in a precision. In bf16, and between layers in int8, numbers are bfloat16 where this CPU computes with them; where it does not, OpenVINO would compute
/// such a graph in float32 all the same, after converting. A CPU that cannot compute in int8 is given the dequantised weights.
ops::OpenVinoOps::Options options_of(Engine::Precision precision) {
    const bool int8 = precision == Engine::Precision::int8;
    const bool bfloat16 = (precision == Engine::Precision::bf16 || int8) && cpu_computes_in_bfloat16();
    return {.precision = bfloat16 ? ov::element::bf16 : ov::element::f32, .int8 = int8 && cpu_computes_in_int8()};
}

/// `write(options, batch)` writes a graph.
template <class Write>
Graphs graphs_of(const models::Model& model, const std::string& form, Engine::Precision precision, Write write) {
    const auto options = options_of(precision);
    return {[options, write](std::int64_t batch) { return write(options, batch); }, options.precision,
            identity_of(model, fmt::format("{} {}", form, name_of(precision))), [&model] {
                if (model.mapped) model.mapped->release_pages();
            }};
}

/// to[i] = factor * from[i]
void scaled(const float* from, float factor, std::int64_t count, float* to) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = factor * from[i];
}

/// out[i] = a x[i] + b f[i]
void combined(float a, const float* x, float b, const float* f, std::int64_t count, float* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = a * x[i] + b * f[i];
}

float* input_of(ov::InferRequest& request, std::size_t i) { return request.get_input_tensor(i).data<float>(); }

Tensor float_on_cpu(const Tensor& tensor) { return tensor.to(at::kCPU, at::kFloat).contiguous(); }

}  // namespace

OpenVinoDenoiser::OpenVinoDenoiser(const models::Model& model, Engine::Precision precision)
    : model_(model),
      network_(graphs_of(model, "any level", precision, [&model](const auto& options, std::int64_t batch) { return graph_for_any_level(model, options, batch); })) {}

Tensor OpenVinoDenoiser::denoise(const Tensor& x_t, const Tensor& sigma, const diffusion::Condition& condition) const {
    const std::int64_t classes = model_.network.classes, label = classes * std::max<std::int64_t>(1, model_.network.tokens);
    diffusion::check_condition(model_.network, condition);
    if (condition.augment.defined()) core::fail("augment labels are read by LibTorch alone; take --engine torch");
    const diffusion::Preconditioning with = diffusion::precondition(float_on_cpu(sigma), model_.scheme);
    const Tensor x = float_on_cpu(x_t), labels = classes > 0 ? float_on_cpu(condition.labels) : Tensor(), out = at::empty_like(x);
    const std::int64_t each = x.numel() / std::max<std::int64_t>(1, x.size(0));
    const auto numbers = [](const Tensor& tensor) { return tensor.const_data_ptr<float>(); };
    network_.in_pieces(x.size(0), [&](ov::InferRequest& request, std::int64_t first, std::int64_t count) {
        const float* piece = numbers(x) + first * each;
        for (std::int64_t i = 0; i < count; ++i) scaled(piece + i * each, numbers(with.c_in)[first + i], each, input_of(request, 0) + i * each);
        std::copy_n(numbers(with.c_noise) + first, count, input_of(request, 1));
        if (classes > 0) std::copy_n(numbers(labels) + first * label, count * label, input_of(request, 2));
        request.infer();
        const float* raw = request.get_output_tensor().data<float>();
        float* to = out.mutable_data_ptr<float>() + first * each;
        for (std::int64_t i = 0; i < count; ++i) {
            combined(numbers(with.c_skip)[first + i], piece + i * each, numbers(with.c_out)[first + i], raw + i * each, each, to + i * each);
        }
    });
    return out;
}

OpenVinoOneStep::OpenVinoOneStep(const models::Model& model, std::vector<std::int64_t> classes, Engine::Precision precision)
    : model_(model), classes_(in_order(std::move(classes))),
      network_(graphs_of(model, fmt::format("one level {}", classes_), precision,
                         [this](const auto& options, std::int64_t batch) { return graph_for_one_level(model_, classes_, options, batch); })) {
    const OneStepFactors factors = one_step_factors(model);
    z_in_ = static_cast<float>(factors.in);
    z_skip_ = static_cast<float>(factors.skip);
    c_out_ = static_cast<float>(factors.out);
}

std::int32_t OpenVinoOneStep::row_of(std::int64_t class_id) const {
    const auto place = std::ranges::lower_bound(classes_, class_id);
    if (place == classes_.end() || *place != class_id) throw core::UsageError(fmt::format("class {} is none of those that this model was opened for", class_id));
    return static_cast<std::int32_t>(place - classes_.begin());
}

Tensor OpenVinoOneStep::draw(const Tensor& z, std::span<const std::int64_t> classes) const {
    const Tensor noise = float_on_cpu(z), out = at::empty_like(noise);
    const std::int64_t each = noise.numel() / std::max<std::int64_t>(1, noise.size(0));
    network_.in_pieces(noise.size(0), [&](ov::InferRequest& request, std::int64_t first, std::int64_t count) {
        const float* piece = noise.const_data_ptr<float>() + first * each;
        scaled(piece, z_in_, count * each, input_of(request, 0));
        if (model_.network.classes > 0) {
            auto* rows = request.get_input_tensor(1).data<std::int32_t>();
            for (std::int64_t i = 0; i < count; ++i) rows[i] = row_of(classes[static_cast<std::size_t>(first + i)]);
        }
        request.infer();
        const float* raw = request.get_output_tensor().data<float>();
        combined(z_skip_, piece, c_out_, raw, count * each, out.mutable_data_ptr<float>() + first * each);
    });
    return out;
}

}  // namespace atelier::inference
