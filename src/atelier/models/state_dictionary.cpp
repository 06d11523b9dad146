#include "atelier/models/state_dictionary.h"

#include "atelier/core/error.h"
#include "atelier/models/torch_file.h"
#include "atelier/ops/parameters.h"

namespace atelier::models {

namespace {

using core::PickleValue;

constexpr int deepest = 32;
constexpr std::size_t most_steps = 1'000'000;

/// Walks dictionaries in dictionaries.
void collect_named(const std::shared_ptr<TorchFile>& file, PickleWalk& walk, const PickleValue& value, const std::string& name, int depth,
                   NamedTensors& tensors) {
    for (const auto& [key, entry] : walk.entries(value, depth)) {
        if (!key.is_text()) continue;
        const std::string path = name.empty() ? std::string(key.text()) : name + "." + std::string(key.text());
        if (TorchFile::is_tensor(entry)) {
            tensors[path] = [file, tensor = entry] { return file->tensor(tensor); };
        } else if (entry.is_dict() || entry.is_call("collections.OrderedDict")) {
            collect_named(file, walk, entry, path, depth + 1, tensors);
        }
    }
}

}  // namespace

std::vector<std::pair<PickleValue, PickleValue>> PickleWalk::entries(const PickleValue& value, int depth) {
    auto entries = value.entries();
    steps_ += entries.size() + 1;
    if (depth > deepest || steps_ > most_steps) core::fail("{}: its objects hold each other too deep or too often; no checkpoint does", where_);
    return entries;
}

NamedTensors read_named_tensors(const std::filesystem::path& path) {
    NamedTensors named;
    if (path.extension() == ".safetensors") {
        const ops::Parameters all = ops::read_parameters(path, /*keep_types=*/true);
        for (const auto& [name, tensor] : all.tensors()) named[name] = [held = tensor] { return held; };
    } else {
        const auto file = std::make_shared<TorchFile>(path);
        PickleWalk walk(file->where());
        collect_named(file, walk, file->root(), "", 0, named);
    }
    return named;
}

}  // namespace atelier::models
