#include <algorithm>
#include <set>

#include "atelier/core/error.h"
#include "atelier/graph/sinusoid.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

constexpr const char* stems[] = {"diffusion_pytorch_model",
                                 "model"};  // diffusers' and transformers'

/// Maps older names to current ones: an autoencoder's attention, and a text tower without its outer
/// name.
std::string newer_name(std::string name) {
    static const std::map<std::string, std::string> attention{
        {".query.", ".to_q."},
        {".key.", ".to_k."},
        {".value.", ".to_v."},
        {".proj_attn.", ".to_out.0."},
    };
    for (const auto& [old, current] : attention) {
        const std::size_t position = name.find(old);
        if (position != name.npos && name.find(".attentions.") != name.npos)
            return name.replace(position, old.size(), current);
    }
    const bool layer_of_text =  // AutoencoderTiny has an "encoder.layers.", too
        name.starts_with("encoder.layers.") &&
        (name.find(".self_attn.") != name.npos || name.find(".mlp.") != name.npos ||
         name.find(".layer_norm") != name.npos);
    if (layer_of_text || name.starts_with("embeddings.") || name.starts_with("final_layer_norm."))
        return "text_model." + name;
    return name;
}

bool is_buffer(const std::string& name) { return name.ends_with("position_ids"); }

/// Throws core::Error if a tensor exists, but with an unsupported type.
void reject_unread(const std::vector<fs::path>& files, const std::string& name) {
    for (const fs::path& path : files) {
        const core::SafetensorsFile file(path);
        if (file.unsupported().contains(name)) file.entry(name);
    }
}

bool readable(core::DType type) {
    return type == core::DType::F32 || type == core::DType::F16 || type == core::DType::BF16;
}

}  // namespace

DiffusersWeights::DiffusersWeights(const fs::path& folder) : folder_(folder) {
    for (const char* stem : stems) {
        for (const char* variant : {"", ".fp16", ".bf16"}) {
            const fs::path whole = folder / fmt::format("{}{}.safetensors", stem, variant);
            if (fs::exists(whole)) add(whole, nullptr);
            for (const std::string& index :
                 {fmt::format("{}.safetensors.index{}.json", stem, variant),
                  fmt::format("{}{}.safetensors.index.json", stem, variant)}) {
                if (files_.empty() && fs::exists(folder / index)) add_shards(folder / index);
            }
            if (!files_.empty()) return;
        }
    }
    core::fail(
        "{}: holds no weights; atelier reads *.safetensors or *.safetensors.index.json, not .bin "
        "files. Load the directory with diffusers and save it again (save_pretrained)",
        folder.string());
}

void DiffusersWeights::add(const fs::path& path, const std::vector<std::string>* selected) {
    const auto file = std::make_shared<const core::SafetensorsFile>(path);
    files_.push_back(path);
    std::vector<std::string> names;
    if (selected) names = *selected;
    else
        for (const auto& [name, entry] : file->entries()) names.push_back(name);
    for (const std::string& name : names) {
        const core::TensorEntry& entry = file->entry(name);
        if (is_buffer(name)) continue;
        if (!readable(entry.dtype)) {
            core::fail("{}: tensor \"{}\" is of type {}; weights are F32, F16 or BF16",
                       path.string(), name.substr(0, 200), core::name_of(entry.dtype));
        }
        if (!locations_.emplace(newer_name(name), TensorLocation{file, name}).second)
            core::fail("{}: tensor \"{}\" is there twice, under its old and its new name",
                       path.string(), name.substr(0, 200));
    }
}

void DiffusersWeights::add_shards(const fs::path& index) {
    const nlohmann::json json = core::read_json(index);
    const core::JsonObject map = core::JsonObject(json, index.string()).object("weight_map");
    std::map<std::string, std::vector<std::string>> by_file;
    for (const auto& [name, shard] : map.json().items()) {
        if (!shard.is_string())
            core::fail("{}: \"{}\" must name a file", index.string(), name.substr(0, 200));
        by_file[shard.get<std::string>()].push_back(name);
    }
    if (by_file.empty()) core::fail("{}: \"weight_map\" names no file", index.string());
    for (const auto& [shard, names] : by_file) {
        if (shard.empty() || fs::path(shard).filename() != shard || shard == "..") {
            core::fail("{}: names the file \"{}\"; shards lie beside the index", index.string(),
                       shard.substr(0, 200));
        }
        if (!fs::exists(folder_ / shard))
            core::fail("{}: is missing, {} names it; download the directory again",
                       (folder_ / shard).string(), index.filename().string());
        add(folder_ / shard, &names);
    }
}

std::int64_t DiffusersWeights::count() const {
    std::int64_t total = 0;
    for (const auto& [name, location] : locations_)
        total += graph::elements(location.file->entry(location.name).shape);
    return total;
}

std::string DiffusersWeights::types() const {
    std::set<std::string> all;
    for (const auto& [name, location] : locations_)
        all.insert(core::name_of(location.file->entry(location.name).dtype));
    std::string text;
    for (const std::string& type : all) text += (text.empty() ? "" : ", ") + type;
    return text;
}

void DiffusersWeights::check_against(std::span<const graph::ParameterSpec> specs) const {
    std::set<std::string> known;
    for (const graph::ParameterSpec& spec : specs) {
        known.insert(spec.name);
        const auto found = locations_.find(spec.name);
        if (found == locations_.end()) {
            reject_unread(files_, spec.name);
            core::fail(
                "{}: tensor \"{}\" is missing; config.json beside it describes another network",
                files_.front().string(), spec.name);
        }
        const auto& [file, name] = found->second;
        const core::Shape& shape = file->entry(name).shape;
        if (shape != spec.shape) {
            core::fail("{}: tensor \"{}\" is {}, config.json implies {}", file->path().string(),
                       name, core::to_string(shape), core::to_string(spec.shape));
        }
    }
    for (const auto& [name, location] : locations_) {
        if (!known.contains(name))
            core::fail("{}: tensor \"{}\" belongs to no layer that config.json describes",
                       location.file->path().string(), location.name.substr(0, 200));
    }
}

backends::Parameters DiffusersWeights::read() const {
    backends::Parameters parameters;
    for (const auto& [name, location] : locations_)
        parameters.set(name, backends::read_tensor(*location.file, location.name));
    release_pages();
    return parameters;
}

backends::Parameters DiffusersWeights::map() const {
    backends::Parameters parameters;
    for (const auto& [name, location] : locations_)
        parameters.set(name, backends::map_tensor(location.file, location.name));
    return parameters;
}

backends::Parameters unrounded_tables(const networks::NamedFunctions& functions,
                                      const DiffusersWeights& weights) {
    backends::Parameters exact;
    for (const auto& [name, function] : functions) {
        for (const auto& [parameter, layer] : function.tables) {
            const auto& [file, stored_name] = weights.locations().at(parameter);
            const Tensor stored = backends::map_tensor(file, stored_name);
            if (stored.scalar_type() != at::kHalf && stored.scalar_type() != at::kBFloat16)
                continue;
            const Tensor table = at::tensor(graph::grid_table(layer, stored.size(2)));
            // To the last bit, since a saver's rounding of its own may come before.
            const double bit = stored.scalar_type() == at::kHalf ? 0x1p-10 : 0x1p-7;
            const Tensor rounded = stored.flatten().to(at::kFloat);
            if (at::allclose(rounded, table, bit, 1e-6))
                exact.set(parameter, table.view(stored.sizes()));
        }
    }
    return exact;
}

void DiffusersWeights::release_pages() const {
    std::set<std::shared_ptr<const core::SafetensorsFile>> files;
    for (const auto& [name, location] : locations_) files.insert(location.file);
    for (const auto& file : files) file->release_pages();
}

}  // namespace atelier::models
