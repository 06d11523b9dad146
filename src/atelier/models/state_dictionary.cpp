#include "atelier/models/state_dictionary.h"

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/error.h"
#include "atelier/models/torch_file.h"

namespace atelier::models {

namespace {

using core::PickleValue;

constexpr int max_depth = 32;
constexpr std::size_t max_steps = 1'000'000;

/// Collects the tensors of nested dictionaries.
void collect_named(const std::shared_ptr<TorchFile>& file, PickleWalk& walk,
                   const PickleValue& value, const std::string& name, int depth,
                   NamedTensors& tensors) {
    for (const auto& [key, entry] : walk.entries(value, depth)) {
        if (!key.is_text()) continue;
        const std::string path =
            name.empty() ? std::string(key.text()) : name + "." + std::string(key.text());
        if (TorchFile::is_tensor(entry)) {
            tensors[path] = [file, tensor = entry] { return file->tensor(tensor); };
        } else if (entry.is_dict() || entry.is_call("collections.OrderedDict")) {
            collect_named(file, walk, entry, path, depth + 1, tensors);
        }
    }
}

}  // namespace

std::vector<std::pair<PickleValue, PickleValue>> PickleWalk::entries(const PickleValue& value,
                                                                     int depth) {
    auto entries = value.entries();
    steps_ += entries.size() + 1;
    if (depth > max_depth || steps_ > max_steps)
        core::fail("{}: its objects are nested too deep or too often for a checkpoint", where_);
    return entries;
}

NamedTensors read_named_tensors(const std::filesystem::path& path) {
    NamedTensors named;
    if (path.extension() == ".safetensors") {
        const backends::Parameters all = backends::read_parameters(path, /*keep_types=*/true);
        for (const auto& [name, tensor] : all.tensors())
            named[name] = [copy = tensor] { return copy; };
    } else {
        const auto file = std::make_shared<TorchFile>(path);
        PickleWalk walk(file->where());
        collect_named(file, walk, file->root(), "", 0, named);
    }
    return named;
}

Tensor tensor_of(const NamedTensors& tensors, const std::string& name,
                 const std::vector<std::int64_t>& shape, const std::string& network,
                 const std::string& hint, const std::string& where) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) core::fail("{}: has no tensor \"{}\"; {}", where, name, hint);
    const Tensor tensor = found->second().to(at::kFloat).contiguous();
    if (tensor.sizes() != at::IntArrayRef(shape)) {
        core::fail("{}: tensor \"{}\" is {}, {} has {}", where, name,
                   core::to_string(tensor.sizes().vec()), network, core::to_string(shape));
    }
    if (!at::isfinite(tensor).all().item<bool>())
        core::fail("{}: tensor \"{}\" holds values that are not finite", where, name);
    return tensor;
}

}  // namespace atelier::models
