#include "atelier/models/edm_checkpoint.h"

#include <algorithm>
#include <functional>

#include <fmt/ranges.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/models/checksums.h"
#include "atelier/models/edm_classes.h"
#include "atelier/models/state_dictionary.h"
#include "atelier/models/torch_file.h"

namespace atelier::models {

namespace {

using core::PickleValue;

bool is_persistent(const PickleValue& value) {
    return value.is_call("torch_utils.persistence._reconstruct_persistent_obj");
}

/// The class and state of a persistent object (one pickled with its source code).
struct Persistent {
    std::string class_name;
    PickleValue state;
};

Persistent persistent(const PickleValue& object, const std::string& where) {
    if (!is_persistent(object) || object.arguments().size() != 1)
        core::fail("{}: holds no network where EDM's pickles have one", where);
    const PickleValue about = object.arguments()[0];
    return {std::string(about["class_name"].text()), about["state"]};
}

/// Adds the parameters and buffers of a module and its submodules.
void collect(TorchFile& file, PickleWalk& walk, const PickleValue& module,
             const std::string& prefix, int depth, backends::Parameters& tensors) {
    const PickleValue state =
        is_persistent(module) ? persistent(module, file.where()).state : module.state();
    walk.entries(state, depth);
    for (const char* kind : {"_parameters", "_buffers"}) {
        for (const auto& [name, value] : walk.entries(state[kind], depth)) {
            if (!value.is_none())
                tensors.set(prefix + std::string(name.text()), file.tensor(value));
        }
    }
    for (const auto& [name, child] : walk.entries(state["_modules"], depth)) {
        if (!child.is_none())
            collect(file, walk, child, prefix + std::string(name.text()) + ".", depth + 1, tensors);
    }
}

/// The network: under "ema", in a training state under "net", or the object itself.
PickleValue network_of(const PickleValue& root, const std::string& where) {
    if (!root.is_dict()) return root;
    for (const char* key : {"ema", "net"}) {
        if (!root[key].is_none()) return root[key];
    }
    core::fail(
        "{}: has no \"ema\" and no \"net\", under which EDM's files hold the network; a state "
        "dictionary needs --config",
        where);
}

/// The prefixes under which a state dictionary holds networks.
std::vector<std::string> prefixes(const NamedTensors& tensors) {
    constexpr std::string_view first = "map_layer0.weight";
    std::vector<std::string> found;
    for (const auto& [name, read] : tensors) {
        if (name.ends_with(first)) found.push_back(name.substr(0, name.size() - first.size()));
    }
    return found;
}

std::string chosen_prefix(const NamedTensors& tensors, const std::string& requested,
                          const std::string& where) {
    const std::vector<std::string> all = prefixes(tensors);
    if (all.empty()) core::fail("{}: holds none of EDM's networks (no map_layer0.weight)", where);
    std::vector<std::string> matching;
    std::ranges::copy_if(all, std::back_inserter(matching),
                         [&](const std::string& prefix) { return prefix.starts_with(requested); });
    if (matching.size() == 1) return matching.front();
    core::fail("{}: holds {} networks, under {}; name one with --prefix", where, all.size(),
               fmt::join(all, ", "));
}

}  // namespace

Checkpoint read_edm_pickle(const std::filesystem::path& path) {
    TorchFile file(path);
    const PickleValue object = network_of(file.root(), file.where());
    const Persistent outer = persistent(object, file.where());
    const PickleValue model = outer.state["_modules"]["model"];
    const Persistent inner = persistent(model, file.where());
    Checkpoint checkpoint{
        edm_config({outer.class_name, outer.state}, {inner.class_name, inner.state}, file.where()),
        {}};
    PickleWalk walk(file.where());
    collect(file, walk, object, "", 0, checkpoint.tensors);
    return checkpoint;
}

Checkpoint read_state_dictionary(const std::filesystem::path& path, const nlohmann::json& config,
                                 const std::string& prefix) {
    const NamedTensors all = read_named_tensors(path);
    const std::string chosen = chosen_prefix(all, prefix, path.string());
    Checkpoint checkpoint{config, {}};
    for (auto it = all.lower_bound(chosen); it != all.end() && it->first.starts_with(chosen);
         ++it) {
        const std::string name = it->first.substr(chosen.size());
        if (name.starts_with("logvar_linear.")) continue;  // FastGen's, for training only
        checkpoint.tensors.set("model." + name, it->second());
    }
    return checkpoint;
}

void write_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint,
                      const std::string& source) {
    const Model model = model_of(checkpoint.config, checkpoint.tensors, source);
    core::create_directory_atomically(directory, [&](const std::filesystem::path& temporary) {
        backends::write_parameters(temporary / "model.safetensors", checkpoint.tensors);
        write_card(temporary, model, {"model.safetensors"});
    });
    core::log::info("{}: {} with {} parameters", directory.string(), model.network.architecture,
                    model.parameters.count());
}

void write_edm_state(const std::filesystem::path& path, const std::filesystem::path& directory) {
    const ModelCard model = read_card(directory);
    const auto where = (directory / "config.json").string();
    backends::Parameters tensors = edm_buffers(core::JsonObject(model.config, where));
    tensors.merge(backends::read_parameters(directory / "model.safetensors", /*keep_types=*/true),
                  "");
    model_of(model.config, tensors, (directory / "model.safetensors").string());
    const auto [class_name, arguments] = edm_arguments(model);
    backends::write_parameters(path, tensors,
                               {{"class_name", class_name}, {"init_kwargs", arguments.dump()}});
}

}  // namespace atelier::models
