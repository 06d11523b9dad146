#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/protobuf.h"
#include "atelier/graph/graph.h"

namespace atelier::backends {

/// An ONNX graph (onnx.proto3, IR version 8, operator set 17) under construction. Values are
/// identified by name. The first axis of inputs and outputs is dynamic, "batch".
class OnnxGraph {
public:
    using Attribute = std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>>;
    using Attributes = std::vector<std::pair<std::string, Attribute>>;

    /// `shape` without the first axis; `type` is at::kFloat, at::kLong or at::kInt.
    std::string input(const std::string& name, at::ScalarType type, const graph::Shape& shape);
    /// Makes `value` an output of the graph called `name`; float32, `shape` without the first axis.
    void output(const std::string& name, const std::string& value, const graph::Shape& shape);
    /// Adds a node with `inputs`, whose results are named after `label`. Returns the name of the
    /// first result.
    std::string node(const std::string& type, const std::vector<std::string>& inputs,
                     const std::string& label, const Attributes& attributes = {}, int results = 1);
    /// The i-th result of a node, given the first one's name.
    static std::string result(const std::string& first, int i);

    /// Adds a constant (float32, int64 or int8); one that has the same name already is not added
    /// again.
    std::string constant(const std::string& name, const Tensor& tensor);
    std::string integers(const std::vector<std::int64_t>& values);
    std::string scalar(float value);

    /// The weights file next to a graph's own file: its path with ".data" appended.
    static std::filesystem::path data_file(const std::filesystem::path& path) {
        return path.string() + ".data";
    }
    /// Writes the model atomically. Weights of more than `max_inline_bytes` in total go to
    /// `data_file`, since no protobuf message may exceed 2 GB. `metadata` becomes the model's
    /// metadata properties.
    void write(const std::filesystem::path& path, const std::string& name,
               const std::map<std::string, std::string>& metadata,
               std::size_t max_inline_bytes = std::size_t{1} << 30) const;

private:
    core::ProtobufMessage with_weights(const std::string& data_file) const;

    core::ProtobufMessage graph_;  // without its constants
    std::map<std::string, Tensor> constants_;
    std::int64_t count_ = 0;  // of nodes
};

}  // namespace atelier::backends
