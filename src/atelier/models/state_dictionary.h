#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/pickle.h"

namespace atelier::models {

/// A walk through a pickle's objects, limited in steps and depth, since they may contain each
/// other.
class PickleWalk {
public:
    explicit PickleWalk(const std::string& where) : where_(where) {}

    /// The entries of a dict at nesting depth `depth`. Throws core::Error, beginning with the
    /// pickle's path, if the walk is too long.
    std::vector<std::pair<core::PickleValue, core::PickleValue>> entries(
        const core::PickleValue& value, int depth);

private:
    std::string where_;
    std::size_t steps_ = 0;
};

/// Tensors of a state dictionary by name, read on demand: a file may also hold other networks and
/// an optimiser.
using NamedTensors = std::map<std::string, std::function<Tensor()>>;

/// Reads a file of torch.save's (.pth, .bin, .pt) or a safetensors file: tensors, in their stored
/// types, by the keys that lead to them, joined by dots. No code in the file is executed. Throws
/// core::Error naming the file.
NamedTensors read_named_tensors(const std::filesystem::path& path);

/// Tensor `name` of `tensors` as float32, contiguous. Throws core::Error, beginning with `where`,
/// if it is missing (adding `hint`), its shape differs from `shape`, which `network` has, or it
/// holds non-finite values.
Tensor tensor_of(const NamedTensors& tensors, const std::string& name,
                 const std::vector<std::int64_t>& shape, const std::string& network,
                 const std::string& hint, const std::string& where);

}  // namespace atelier::models
