#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "atelier/core/protobuf.h"
#include "atelier/ops/ops.h"
#include "atelier/ops/torch.h"

namespace atelier::ops {

/// An ONNX graph (onnx.proto3, IR version 8, operator set 17) while it is written. Values are known by names. The first axis of inputs and outputs is free, "batch".
class OnnxGraph {
public:
    using Attribute = std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>>;
    using Attributes = std::vector<std::pair<std::string, Attribute>>;

    /// `shape` without the first axis; `type` is at::kFloat, at::kLong or at::kInt.
    std::string input(const std::string& name, at::ScalarType type, const Shape& shape);
    /// What `value` is, under the name that readers ask for; float32.
    void output(const std::string& name, const std::string& value, const Shape& shape);
    /// Adds a node of `inputs`, whose results are named after `label`. Returns the first of them.
    std::string node(const std::string& type, const std::vector<std::string>& inputs, const std::string& label, const Attributes& attributes = {}, int results = 1);
    /// The i-th result of a node, by the first's name.
    static std::string result(const std::string& first, int i);

    /// A tensor (float32, int64 or int8) by a name of its own; the same name is written once.
    std::string constant(const std::string& name, const Tensor& tensor);
    std::string numbers(const std::vector<std::int64_t>& numbers);
    std::string number(float value);

    /// Beside a graph's own file: its path with ".data" added.
    static std::filesystem::path data_file(const std::filesystem::path& path) { return path.string() + ".data"; }
    /// Writes the model, atomically; weights of more than `most_inside` bytes together go to `data_file`, since no protobuf message may pass 2 GB. `facts` become the model's metadata.
    void write(const std::filesystem::path& path, const std::string& name, const std::map<std::string, std::string>& facts, std::size_t most_inside = std::size_t{1} << 30) const;

private:
    core::ProtobufMessage with_weights(const std::string& data_file) const;

    core::ProtobufMessage graph_;  // without its constants
    std::map<std::string, Tensor> constants_;
    std::int64_t count_ = 0;  // of nodes
};

}  // namespace atelier::ops
