#include "atelier/models/edm_checkpoint.h"

#include <algorithm>
#include <functional>

#include <fmt/ranges.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/models/edm_classes.h"
#include "atelier/models/torch_file.h"

namespace atelier::models {

namespace {

using core::PickleValue;

/// Objects of a pickle may hold each other, and again and again: a walk through them ends after so many steps, and so deep.
class Walk {
public:
    explicit Walk(const std::string& where) : where_(where) {}

    std::vector<std::pair<PickleValue, PickleValue>> entries(const PickleValue& value, int depth) {
        auto entries = value.entries();
        steps_ += entries.size() + 1;
        if (depth > deepest || steps_ > most_steps) core::fail("{}: its objects hold each other too deep or too often; no checkpoint does", where_);
        return entries;
    }

private:
    static constexpr int deepest = 32;
    static constexpr std::size_t most_steps = 1'000'000;
    std::string where_;
    std::size_t steps_ = 0;
};

bool is_persistent(const PickleValue& value) { return value.is_call("torch_utils.persistence._reconstruct_persistent_obj"); }

/// The class and state of an object that carries its own source.
struct Persistent {
    std::string class_name;
    PickleValue state;
};

Persistent persistent(const PickleValue& object, const std::string& where) {
    if (!is_persistent(object) || object.arguments().size() != 1) core::fail("{}: holds no network where EDM's pickles have one", where);
    const PickleValue about = object.arguments()[0];
    return {std::string(about["class_name"].text()), about["state"]};
}

/// Adds the parameters and buffers of a module and the modules in it.
void collect(TorchFile& file, Walk& walk, const PickleValue& module, const std::string& prefix, int depth, ops::Parameters& tensors) {
    const PickleValue state = is_persistent(module) ? persistent(module, file.where()).state : module.state();
    walk.entries(state, depth);
    for (const char* kind : {"_parameters", "_buffers"}) {
        for (const auto& [name, value] : walk.entries(state[kind], depth)) {
            if (!value.is_none()) tensors.set(prefix + std::string(name.text()), file.tensor(value));
        }
    }
    for (const auto& [name, child] : walk.entries(state["_modules"], depth)) {
        if (!child.is_none()) collect(file, walk, child, prefix + std::string(name.text()) + ".", depth + 1, tensors);
    }
}

/// The network: what stands under "ema", in a training state under "net", or the object itself.
PickleValue network_of(const PickleValue& root, const std::string& where) {
    if (!root.is_dict()) return root;
    for (const char* key : {"ema", "net"}) {
        if (!root[key].is_none()) return root[key];
    }
    core::fail("{}: has no \"ema\" and no \"net\", under which EDM's files hold the network; a state dictionary needs --config", where);
}

/// Tensors that a state dictionary names, read when they are asked for: a file may hold several networks and an optimiser besides.
using Named = std::map<std::string, std::function<Tensor()>>;

/// Walks dictionaries in dictionaries: tensors by the keys that lead to them, joined by dots.
void collect_named(const std::shared_ptr<TorchFile>& file, Walk& walk, const PickleValue& value, const std::string& name, int depth, Named& tensors) {
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

Named read_names(const std::filesystem::path& path) {
    Named named;
    if (path.extension() == ".safetensors") {
        const ops::Parameters all = ops::read_parameters(path, /*keep_types=*/true);
        for (const auto& [name, tensor] : all.tensors()) named[name] = [held = tensor] { return held; };
    } else {
        const auto file = std::make_shared<TorchFile>(path);
        Walk walk(file->where());
        collect_named(file, walk, file->root(), "", 0, named);
    }
    return named;
}

/// Where networks lie in a state dictionary: what stands before the first layer's name.
std::vector<std::string> prefixes(const Named& tensors) {
    constexpr std::string_view first = "map_layer0.weight";
    std::vector<std::string> found;
    for (const auto& [name, read] : tensors) {
        if (name.ends_with(first)) found.push_back(name.substr(0, name.size() - first.size()));
    }
    return found;
}

std::string chosen_prefix(const Named& tensors, const std::string& wanted, const std::string& where) {
    const std::vector<std::string> all = prefixes(tensors);
    if (all.empty()) core::fail("{}: holds none of EDM's networks (no map_layer0.weight)", where);
    std::vector<std::string> fitting;
    std::ranges::copy_if(all, std::back_inserter(fitting), [&](const std::string& prefix) { return prefix.starts_with(wanted); });
    if (fitting.size() == 1) return fitting.front();
    core::fail("{}: holds {} networks, under {}; name one with --prefix", where, all.size(), fmt::join(all, ", "));
}

}  // namespace

Checkpoint read_edm_pickle(const std::filesystem::path& path) {
    TorchFile file(path);
    const PickleValue object = network_of(file.root(), file.where());
    const Persistent outer = persistent(object, file.where());
    const PickleValue model = outer.state["_modules"]["model"];
    const Persistent inner = persistent(model, file.where());
    Checkpoint checkpoint{edm_config({outer.class_name, outer.state}, {inner.class_name, inner.state}, file.where()), {}};
    Walk walk(file.where());
    collect(file, walk, object, "", 0, checkpoint.tensors);
    return checkpoint;
}

Checkpoint read_state_dictionary(const std::filesystem::path& path, const nlohmann::json& config, const std::string& prefix) {
    const Named all = read_names(path);
    const std::string chosen = chosen_prefix(all, prefix, path.string());
    Checkpoint checkpoint{config, {}};
    for (auto it = all.lower_bound(chosen); it != all.end() && it->first.starts_with(chosen); ++it) {
        const std::string name = it->first.substr(chosen.size());
        if (name.starts_with("logvar_linear.")) continue;  // FastGen's, for training alone
        checkpoint.tensors.set("model." + name, it->second());
    }
    return checkpoint;
}

void write_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint, const std::string& source) {
    const Model model = model_of(checkpoint.config, checkpoint.tensors, source);
    core::create_directory_atomically(directory, [&](const std::filesystem::path& temporary) {
        ops::write_parameters(temporary / "model.safetensors", checkpoint.tensors);
        core::write_json(temporary / "config.json", checkpoint.config);
    });
    core::log::info("{}: {} with {} parameters", directory.string(), model.network.architecture, model.parameters.count());
}

void write_edm_state(const std::filesystem::path& path, const std::filesystem::path& directory) {
    const Model model = read_model_config(directory);
    const auto where = (directory / "config.json").string();
    ops::Parameters tensors = edm_buffers(core::JsonObject(model.config, where));
    tensors.merge(ops::read_parameters(directory / "model.safetensors", /*keep_types=*/true), "");
    model_of(model.config, tensors, (directory / "model.safetensors").string());
    const auto [class_name, arguments] = edm_arguments(model);
    ops::write_parameters(path, tensors, {{"class_name", class_name}, {"init_kwargs", arguments.dump()}});
}

}  // namespace atelier::models
