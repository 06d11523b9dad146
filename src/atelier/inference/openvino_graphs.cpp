#include "atelier/inference/openvino_graphs.h"

#include <fmt/ranges.h>

#include <openvino/op/convert.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>

#include "atelier/backends/openvino/openvino_ops.h"
#include "atelier/inference/one_step_factors.h"

namespace atelier::inference {

namespace {

using Parameter = std::shared_ptr<ov::op::v0::Parameter>;

Parameter parameter(std::int64_t batch, const graph::Shape& sample, const std::string& name,
                    ov::element::Type type = ov::element::f32) {
    ov::Shape shape{static_cast<std::size_t>(batch)};
    shape.insert(shape.end(), sample.begin(), sample.end());
    auto node = std::make_shared<ov::op::v0::Parameter>(type, shape);
    node->set_friendly_name(name);
    return node;
}

/// The shape of a sample's labels.
graph::Shape one_label(const networks::Network& network) {
    const graph::Shape shape = network.label_shape(1);
    return {shape.begin() + 1, shape.end()};
}

using Inputs = networks::InputsOf<backends::OpenVinoValue>;

std::shared_ptr<ov::Model> graph_of(const models::Model& model,
                                    const backends::OpenVinoOps::Options& options,
                                    const Inputs& named, const ov::ParameterVector& inputs) {
    const networks::Network& network = model.network;
    const ov::Output<ov::Node> raw =
        backends::OpenVinoOps(model.parameters, options)
            .run(*networks::graph_of(network, networks::input_shapes(network)), named.list())[0];
    const auto result = std::make_shared<ov::op::v0::Result>(
        std::make_shared<ov::op::v0::Convert>(raw, ov::element::f32));
    return std::make_shared<ov::Model>(ov::ResultVector{result}, inputs,
                                       model.network.architecture);
}

/// x [N,...], c_noise [N] and, when the network is conditional, labels [N,classes] or
/// [N,tokens,classes].
std::shared_ptr<ov::Model> graph_for_any_level(const models::Model& model,
                                               const backends::OpenVinoOps::Options& options,
                                               std::int64_t batch) {
    const networks::Network& network = model.network;
    ov::ParameterVector inputs{parameter(batch, network.data_shape, "x"),
                               parameter(batch, {}, "c_noise")};
    if (network.label_dim > 0) inputs.push_back(parameter(batch, one_label(network), "labels"));
    Inputs named{inputs[0]->output(0), inputs[1]->output(0)};
    if (network.label_dim > 0) named.labels = inputs[2]->output(0);
    return graph_of(model, options, named, inputs);
}

/// x [N,...] and, when the network is conditional, rows [N] of `classes`.
std::shared_ptr<ov::Model> graph_for_one_level(const models::Model& model,
                                               const std::vector<std::int64_t>& classes,
                                               backends::OpenVinoOps::Options options,
                                               std::int64_t batch) {
    const networks::Network& network = model.network;
    ov::ParameterVector inputs{parameter(batch, network.data_shape, "x")};
    if (network.label_dim > 0) {
        inputs.push_back(parameter(batch, {}, "rows", ov::element::i32));
        options.rows = inputs[1]->output(0);
    }
    const backends::OpenVinoValue x = inputs[0]->output(0);
    return graph_of(model, options, one_step_inputs(model, classes, x), inputs);
}

/// The identity of a model's graphs; empty for large networks, which compile about as fast as they
/// would be loaded from the cache.
std::string identity_of(const models::Model& model, const std::string& kind) {
    constexpr std::int64_t max_parameters = 16'000'000;
    if (model.parameters.count() > max_parameters) return "";
    return fmt::format("{}\n{}\n{}", model.hash(), model.config.dump(), kind);
}

/// The backend's options for a precision. In bf16, and between layers in int8, values are bfloat16
/// if this CPU computes in it; otherwise OpenVINO would only convert such a graph back to float32.
/// A CPU that cannot compute in int8 gets the dequantised weights.
backends::OpenVinoOps::Options options_of(Engine::Precision precision) {
    const bool int8 = precision == Engine::Precision::int8;
    const bool bfloat16 =
        (precision == Engine::Precision::bf16 || int8) && cpu_computes_in_bfloat16();
    return {.precision = bfloat16 ? ov::element::bf16 : ov::element::f32,
            .int8 = int8 && cpu_computes_in_int8()};
}

/// `write(options, batch)` builds a graph.
template <class Write>
GraphSource graph_source(const models::Model& model, const std::string& kind,
                         Engine::Precision precision, Write write) {
    const auto options = options_of(precision);
    return {[options, write](std::int64_t batch) { return write(options, batch); },
            options.precision, identity_of(model, fmt::format("{} {}", kind, name_of(precision))),
            [&model] { model.release_pages(); }};
}

}  // namespace

std::unique_ptr<CompiledNetwork> openvino_network(const models::Model& model,
                                                  Engine::Precision precision) {
    const auto write = [&model](const auto& options, std::int64_t batch) {
        return graph_for_any_level(model, options, batch);
    };
    return std::make_unique<OpenVinoNetwork>(graph_source(model, "any level", precision, write));
}

std::unique_ptr<CompiledNetwork> openvino_one_level(const models::Model& model,
                                                    const std::vector<std::int64_t>& classes,
                                                    Engine::Precision precision) {
    const auto write = [&model, classes](const auto& options, std::int64_t batch) {
        return graph_for_one_level(model, classes, options, batch);
    };
    return std::make_unique<OpenVinoNetwork>(
        graph_source(model, fmt::format("one level {}", classes), precision, write));
}

}  // namespace atelier::inference
