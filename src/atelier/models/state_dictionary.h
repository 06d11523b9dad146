#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "atelier/core/pickle.h"
#include "atelier/ops/torch.h"

namespace atelier::models {

/// Objects of a pickle may hold each other, and again and again: a walk through them ends after so many steps, and so deep.
class PickleWalk {
public:
    explicit PickleWalk(const std::string& where) : where_(where) {}

    /// The entries of a dict that lies `depth` dicts deep. Throws core::Error, beginning with where the pickle is from, when the walk is too long.
    std::vector<std::pair<core::PickleValue, core::PickleValue>> entries(const core::PickleValue& value, int depth);

private:
    std::string where_;
    std::size_t steps_ = 0;
};

/// Tensors that a state dictionary names, read when they are asked for: a file may hold several networks and an optimiser besides.
using NamedTensors = std::map<std::string, std::function<Tensor()>>;

/// Reads a file of torch.save's (.pth, .bin, .pt) or a safetensors file: tensors, each of the type it is stored in, by the keys that lead to them, joined by
/// dots. Nothing in it is run. Throws core::Error naming the file.
NamedTensors read_named_tensors(const std::filesystem::path& path);

/// Tensor `name` of `tensors` as float32, contiguous. Throws core::Error, beginning with `where`, when it is not there (adding `hint`), of another shape than
/// `network` has, or holds numbers that are not finite.
Tensor tensor_of(const NamedTensors& tensors, const std::string& name, const std::vector<std::int64_t>& shape, const std::string& network,
                 const std::string& hint, const std::string& where);

}  // namespace atelier::models
