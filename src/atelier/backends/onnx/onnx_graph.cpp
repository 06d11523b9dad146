#include "atelier/backends/onnx/onnx_graph.h"

#include <fmt/ranges.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"

namespace atelier::backends {

namespace {

using core::ProtobufMessage;

// Field numbers and constants are those of onnx.proto3.
constexpr int ir_version = 8, operator_set = 17;

int type_of(at::ScalarType type) {
    switch (type) {
        case at::kFloat:
            return 1;
        case at::kChar:
            return 3;
        case at::kInt:
            return 6;
        case at::kLong:
            return 7;
        default:
            core::fail("ONNX graphs hold float32, int64, int32 and int8 tensors, not {}",
                       at::toString(type));
    }
}

ProtobufMessage attribute(const std::string& name, const OnnxGraph::Attribute& value) {
    ProtobufMessage message;
    message.text(1, name);
    if (const auto* whole = std::get_if<std::int64_t>(&value))
        return message.number(3, *whole).number(20, 2);
    if (const auto* real = std::get_if<float>(&value)) return message.real(2, *real).number(20, 1);
    if (const auto* text = std::get_if<std::string>(&value))
        return message.text(4, *text).number(20, 3);
    for (const std::int64_t one : std::get<std::vector<std::int64_t>>(value))
        message.number(8, one);
    return message.number(20, 7);
}

/// A ValueInfoProto: a name, a type, and a shape whose first axis is dynamic.
ProtobufMessage port(const std::string& name, at::ScalarType type, const graph::Shape& shape) {
    ProtobufMessage sides;
    sides.message(1, ProtobufMessage().text(2, "batch"));
    for (const std::int64_t side : shape) sides.message(1, ProtobufMessage().number(1, side));
    const ProtobufMessage tensor = ProtobufMessage().number(1, type_of(type)).message(2, sides);
    return ProtobufMessage().text(1, name).message(2, ProtobufMessage().message(1, tensor));
}

std::string_view text_of(const Tensor& tensor) {
    return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// Small constants stay in the graph even when weights are in a file of their own: readers need
/// shapes and factors before they open other files.
bool is_large(const Tensor& tensor) { return tensor.numel() >= 1024; }

ProtobufMessage entry(const std::string& key, const std::string& value) {
    return ProtobufMessage().text(1, key).text(2, value);
}

}  // namespace

std::string OnnxGraph::input(const std::string& name, at::ScalarType type,
                             const graph::Shape& shape) {
    graph_.message(11, port(name, type, shape));
    return name;
}

void OnnxGraph::output(const std::string& name, const std::string& value,
                       const graph::Shape& shape) {
    graph_.message(
        1, ProtobufMessage().text(1, value).text(2, name).text(3, name).text(4, "Identity"));
    graph_.message(12, port(name, at::kFloat, shape));
}

std::string OnnxGraph::result(const std::string& first, int i) {
    return i == 0 ? first : fmt::format("{}:{}", first, i);
}

std::string OnnxGraph::node(const std::string& type, const std::vector<std::string>& inputs,
                            const std::string& label, const Attributes& attributes, int results) {
    const std::string name = fmt::format("{}/{}_{}", label, type, count_++);
    ProtobufMessage message;
    for (const std::string& one : inputs) message.text(1, one);
    for (int i = 0; i < results; ++i) message.text(2, result(name, i));
    message.text(3, name).text(4, type);
    for (const auto& [key, value] : attributes) message.message(5, attribute(key, value));
    graph_.message(1, message);
    return name;
}

std::string OnnxGraph::constant(const std::string& name, const Tensor& tensor) {
    constants_.try_emplace(name, tensor.to(at::kCPU).contiguous());
    return name;
}

std::string OnnxGraph::integers(const std::vector<std::int64_t>& values) {
    return constant(fmt::format("[{}]", fmt::join(values, ",")), at::tensor(values, at::kLong));
}

std::string OnnxGraph::scalar(float value) {
    return constant(fmt::format("number {}", value), at::scalar_tensor(value, at::kFloat));
}

ProtobufMessage OnnxGraph::with_weights(const std::string& data_file) const {
    ProtobufMessage graph = graph_;
    std::int64_t offset = 0;
    for (const auto& [name, tensor] : constants_) {
        ProtobufMessage message;
        for (const std::int64_t side : tensor.sizes()) message.number(1, side);
        message.number(2, type_of(tensor.scalar_type())).text(8, name);
        if (data_file.empty() || !is_large(tensor)) {
            message.text(9, text_of(tensor));
        } else {
            const auto size = static_cast<std::int64_t>(tensor.nbytes());
            message.message(13, entry("location", data_file))
                .message(13, entry("offset", std::to_string(offset)))
                .message(13, entry("length", std::to_string(size)))
                .number(14, 1);
            offset += size;
        }
        graph.message(5, message);
    }
    return graph;
}

void OnnxGraph::write(const std::filesystem::path& path, const std::string& name,
                      const std::map<std::string, std::string>& metadata,
                      std::size_t max_inline_bytes) const {
    std::size_t size = 0;
    for (const auto& [key, tensor] : constants_) size += tensor.nbytes();
    std::filesystem::path beside;
    if (size > max_inline_bytes) {
        beside = data_file(path);
        core::AtomicFile data(beside);
        for (const auto& [key, tensor] : constants_) {
            if (is_large(tensor)) data.write(text_of(tensor));
        }
        data.commit();
    }
    ProtobufMessage model;
    model.number(1, ir_version)
        .text(2, "atelier")
        .message(8, ProtobufMessage().text(1, "").number(2, operator_set));
    for (const auto& [key, value] : metadata) model.message(14, entry(key, value));
    ProtobufMessage graph = with_weights(beside.filename().string());
    graph.text(2, name);
    core::AtomicFile file(path);
    file.write(model.message(7, graph).bytes());
    file.commit();
}

}  // namespace atelier::backends
