#include "atelier/models/low_rank_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/ranges.h>

#include "atelier/core/error.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

/// A network whose layers deltas may be of.
struct Changeable {
    std::string part;
    std::vector<std::string> prefixes;           // of keys whose layers have dots, "unet."
    std::vector<std::string> flat_prefixes;      // of keys whose layers have none, "lora_unet_"
    std::map<std::string, graph::Shape> layers;  // shapes of weights
    std::map<std::string, std::string> flat;     // layers by their names without dots
};

std::string without_dots(std::string name) {
    std::ranges::replace(name, '.', '_');
    return name;
}

Changeable changeable(const std::string& part, std::vector<std::string> prefixes,
                      std::vector<std::string> flat_prefixes,
                      std::span<const graph::ParameterSpec> specs) {
    Changeable made{part, std::move(prefixes), std::move(flat_prefixes), {}, {}};
    constexpr std::string_view ending = ".weight";
    for (const graph::ParameterSpec& spec : specs) {
        if (spec.shape.size() < 2 || !spec.name.ends_with(ending)) continue;
        const std::string layer = spec.name.substr(0, spec.name.size() - ending.size());
        made.layers[layer] = spec.shape;
        made.flat[without_dots(layer)] = layer;
    }
    return made;
}

bool replace_start(std::string& text, const std::string& from, const std::string& to) {
    if (!text.starts_with(from)) return false;
    text.replace(0, from.size(), to);
    return true;
}

/// Adds the names that layers have in Stable Diffusion's and SDXL's first code (sgm), which kohya's
/// files of SDXL use.
void add_first_names(Changeable& to, const networks::SdUnet& unet) {
    std::vector<std::pair<std::string, std::string>> modules{
        {"time_embedding.linear_1", "time_embed.0"},
        {"time_embedding.linear_2", "time_embed.2"},
        {"add_embedding.linear_1", "label_emb.0.0"},
        {"add_embedding.linear_2", "label_emb.0.2"},
        {"conv_in", "input_blocks.0.0"},
        {"conv_out", "out.2"},
        {"mid_block.resnets.0.", "middle_block.0."},
        {"mid_block.attentions.0.", "middle_block.1."},
        {"mid_block.resnets.1.", "middle_block.2."}};
    const auto add = [&](const std::string& ours, const std::string& theirs) {
        modules.emplace_back(ours, theirs);
    };
    const std::size_t levels = unet.down.size();
    std::int64_t block = 1;
    for (std::size_t i = 0; i < levels; ++i) {
        for (std::int64_t j = 0; j < unet.down[i].layers; ++j, ++block) {
            add(fmt::format("down_blocks.{}.resnets.{}.", i, j),
                fmt::format("input_blocks.{}.0.", block));
            add(fmt::format("down_blocks.{}.attentions.{}.", i, j),
                fmt::format("input_blocks.{}.1.", block));
        }
        if (i + 1 < levels)
            add(fmt::format("down_blocks.{}.downsamplers.0.conv", i),
                fmt::format("input_blocks.{}.0.op", block++));
    }
    block = 0;
    for (std::size_t i = 0; i < levels; ++i) {
        const std::int64_t layers = unet.down[levels - 1 - i].layers + 1;
        for (std::int64_t j = 0; j < layers; ++j, ++block) {
            add(fmt::format("up_blocks.{}.resnets.{}.", i, j),
                fmt::format("output_blocks.{}.0.", block));
            add(fmt::format("up_blocks.{}.attentions.{}.", i, j),
                fmt::format("output_blocks.{}.1.", block));
        }
        add(fmt::format("up_blocks.{}.upsamplers.0.conv", i),
            fmt::format("output_blocks.{}.{}.conv", block - 1, unet.up_attends[i] ? 2 : 1));
    }
    static const std::map<std::string, std::string> inside{{"conv1", "in_layers.2"},
                                                           {"time_emb_proj", "emb_layers.1"},
                                                           {"conv2", "out_layers.3"},
                                                           {"conv_shortcut", "skip_connection"}};
    for (const auto& [layer, shape] : to.layers) {
        for (const auto& [ours, theirs] : modules) {
            std::string name = layer;
            const bool whole = !ours.ends_with('.');
            if ((whole && name != ours) || !replace_start(name, ours, theirs)) continue;
            const std::size_t last = name.rfind('.') + 1;
            const auto found = inside.find(name.substr(last));
            if (!whole && found != inside.end()) name.replace(last, name.npos, found->second);
            to.flat.emplace(without_dots(name), layer);
            break;
        }
    }
}

/// What a tensor of a file is.
enum class Role { down, up, alpha };

struct Ending {
    std::string_view text;
    Role role;
};

/// Endings of keys; of those with "_lora" the layer's own name is before it.
constexpr Ending endings[]{
    {".lora_down.weight", Role::down},
    {".lora_up.weight", Role::up},
    {".lora_A.weight", Role::down},
    {".lora_B.weight", Role::up},
    {".lora_A.default.weight", Role::down},
    {".lora_B.default.weight", Role::up},
    {".lora.down.weight", Role::down},
    {".lora.up.weight", Role::up},
    {".lora_linear_layer.down.weight", Role::down},
    {".lora_linear_layer.up.weight", Role::up},
    {"_lora.down.weight", Role::down},
    {"_lora.up.weight", Role::up},
    {".alpha", Role::alpha},
};

/// The layer of `to` that `name` may be in one of the spellings with dots; empty if there is none.
std::string layer_with_dots(const Changeable& to, std::string name) {
    if (const std::size_t at = name.find(".processor."); at != name.npos)
        name.erase(at, std::string_view(".processor").size());
    for (const std::string& tried : {name, "text_model." + name}) {
        if (to.layers.contains(tried)) return tried;
    }
    const std::size_t last = name.rfind('.') + 1;
    const std::string module = name.substr(0, last), own = name.substr(last);
    static const std::map<std::string, std::vector<std::string>> others{
        {"to_out", {"to_out.0", "out_proj"}},
        {"to_q", {"q_proj"}},
        {"to_k", {"k_proj"}},
        {"to_v", {"v_proj"}}};
    if (const auto found = others.find(own); found != others.end()) {
        for (const std::string& other : found->second) {
            if (to.layers.contains(module + other)) return module + other;
        }
    }
    return "";
}

struct Found {
    const Changeable* network;
    std::string layer, prefix;
};

std::optional<Found> find_layer(std::span<const Changeable> networks, const std::string& name) {
    for (const Changeable& network : networks) {
        for (const std::string& prefix : network.flat_prefixes) {
            if (!name.starts_with(prefix)) continue;
            const auto layer = network.flat.find(name.substr(prefix.size()));
            if (layer != network.flat.end()) return Found{&network, layer->second, ""};
        }
        for (const std::string& prefix : network.prefixes) {
            if (!name.starts_with(prefix)) continue;
            const std::string layer = layer_with_dots(network, name.substr(prefix.size()));
            if (!layer.empty()) return Found{&network, layer, prefix};
        }
    }
    return std::nullopt;
}

/// What a file has for one layer.
struct LayerDeltas {
    Tensor down, up, alpha;
    std::string prefix, key;  // the key of any of them
};

/// The rank and the alpha that PEFT's settings in the metadata give layers.
class PeftSettings {
public:
    explicit PeftSettings(const core::SafetensorsFile& file) : where_(file.path().string()) {
        const auto found = file.metadata().find("lora_adapter_metadata");
        if (found == file.metadata().end()) return;
        settings_ = core::parse_json(found->second, where_);
        if (!settings_.is_object())
            core::fail("{}: its metadata \"lora_adapter_metadata\" are no JSON object", where_);
    }

    /// The factor on the deltas of a layer of this rank; 1 where nothing is said.
    double factor(const std::string& prefix, const std::string& layer, std::int64_t rank) const {
        if (flag(prefix + "use_dora"))
            core::fail("{}: holds deltas of DoRA (\"use_dora\"), which are not supported", where_);
        nlohmann::json alpha = rank;
        if (const auto given = settings_.find(prefix + "lora_alpha");
            given != settings_.end() && !given->is_null())
            alpha = *given;
        if (const auto patterns = settings_.find(prefix + "alpha_pattern");
            patterns != settings_.end() && patterns->is_object()) {
            for (const auto& [pattern, value] : patterns->items()) {
                if (layer == pattern || layer.ends_with("." + pattern)) alpha = value;
            }
        }
        if (!alpha.is_number()) core::fail("{}: \"{}lora_alpha\" must be a number", where_, prefix);
        const auto whole = static_cast<double>(rank);
        return alpha.get<double>() / (flag(prefix + "use_rslora") ? std::sqrt(whole) : whole);
    }

private:
    bool flag(const std::string& key) const {
        const auto found = settings_.find(key);
        return found != settings_.end() && *found == true;
    }

    std::string where_;
    nlohmann::json settings_ = nlohmann::json::object();
};

/// Reads one file's tensors by network and layer.
using FileDeltas = std::map<std::pair<const Changeable*, std::string>, LayerDeltas>;

FileDeltas sorted(const core::SafetensorsFile& file, std::span<const Changeable> networks) {
    FileDeltas deltas;
    std::vector<std::string> unknown;
    for (const auto& [key, type] : file.unsupported()) unknown.push_back(key);
    for (const auto& [key, entry] : file.entries()) {
        std::optional<Found> found;
        Role role{};
        for (const Ending& ending : endings) {
            if (!key.ends_with(ending.text)) continue;
            role = ending.role;
            found = find_layer(networks, key.substr(0, key.size() - ending.text.size()));
            if (found) break;
        }
        if (!found) {
            unknown.push_back(key);
            continue;
        }
        LayerDeltas& layer = deltas[{found->network, found->layer}];
        Tensor& place = role == Role::down ? layer.down : role == Role::up ? layer.up : layer.alpha;
        if (place.defined())
            core::fail("{}: \"{}\" is there twice, in two spellings", file.path().string(),
                       key.substr(0, 200));
        const bool number = entry.dtype == core::DType::F32 || entry.dtype == core::DType::F16 ||
                            entry.dtype == core::DType::BF16 || entry.dtype == core::DType::F64 ||
                            entry.dtype == core::DType::I64;
        if (!number)
            core::fail("{}: \"{}\" is of type {}; deltas are floating-point numbers",
                       file.path().string(), key.substr(0, 200), core::name_of(entry.dtype));
        place = backends::read_tensor(file, key).to(at::kFloat);
        layer.prefix = found->prefix;
        layer.key = key;
    }
    if (!unknown.empty()) {
        constexpr std::size_t named = 3;
        std::vector<std::string> first;
        for (const std::string& key : std::span(unknown).first(std::min(named, unknown.size())))
            first.push_back("\"" + key.substr(0, 200) + "\"");
        core::fail(
            "{}: {} of its {} keys are of no layer of this model, or of no low-rank delta: "
            "{}{}",
            file.path().string(), unknown.size(), file.entries().size() + file.unsupported().size(),
            fmt::join(first, ", "), unknown.size() > named ? ", ..." : "");
    }
    if (deltas.empty()) core::fail("{}: holds no low-rank deltas", file.path().string());
    return deltas;
}

/// Down as [rank,in,...] and up as [out,rank,1...], with all factors in up.
std::pair<Tensor, Tensor> fitted(const LayerDeltas& deltas, const graph::Shape& weight,
                                 const std::string& layer, double scale,
                                 const PeftSettings& settings, const std::string& where) {
    if (!deltas.down.defined() || !deltas.up.defined())
        core::fail("{}: \"{}\" has no counterpart: every down has an up, and an alpha both", where,
                   deltas.key.substr(0, 200));
    const auto fail_shape = [&](const Tensor& tensor, const char* what) {
        core::fail("{}: the {} of layer \"{}\" is {}, its weight in the model {}", where, what,
                   layer, core::to_string(tensor.sizes().vec()), core::to_string(weight));
    };
    const std::int64_t out = weight[0], in = graph::elements(weight) / out,
                       rank = deltas.down.dim() < 2 ? 0 : deltas.down.size(0);
    const bool same_filter = weight.size() < 4 || weight[2] * weight[3] == 1 ||
                             deltas.down.sizes().slice(1) == at::IntArrayRef(weight).slice(1);
    if (rank < 1 || deltas.down.numel() != rank * in || !same_filter)
        fail_shape(deltas.down, "down");
    if (deltas.up.dim() < 2 || deltas.up.size(0) != out || deltas.up.numel() != out * rank)
        fail_shape(deltas.up, "up");
    double factor = scale;
    if (!deltas.alpha.defined()) factor *= settings.factor(deltas.prefix, layer, rank);
    else if (deltas.alpha.numel() != 1) fail_shape(deltas.alpha, "alpha");
    else factor *= deltas.alpha.item<double>() / static_cast<double>(rank);
    graph::Shape narrow = weight, wide(weight.size(), 1);
    narrow[0] = rank, wide[0] = out, wide[1] = rank;
    const Tensor up = deltas.up.reshape(wide) * factor;
    if (!at::isfinite(up).all().item<bool>() || !at::isfinite(deltas.down).all().item<bool>())
        core::fail("{}: layer \"{}\" holds values that are not finite", where, layer);
    return {deltas.down.reshape(narrow), up};
}

PartDeltas read_all(std::span<const LowRankFile> files, std::span<const Changeable> networks) {
    std::map<std::pair<const Changeable*, std::string>,
             std::pair<std::vector<Tensor>, std::vector<Tensor>>>
        all;
    for (const LowRankFile& given : files) {
        const core::SafetensorsFile file(given.path);
        const PeftSettings settings(file);
        for (const auto& [key, deltas] : sorted(file, networks)) {
            const auto& [network, layer] = key;
            auto [down, up] = fitted(deltas, network->layers.at(layer), layer, given.scale,
                                     settings, file.path().string());
            all[key].first.push_back(std::move(down));
            all[key].second.push_back(std::move(up));
        }
    }
    PartDeltas parts;
    for (const auto& [key, deltas] : all) {
        backends::Parameters& own = parts[key.first->part];
        own.set(key.second + ".lora_down.weight", at::cat(deltas.first, 0));
        own.set(key.second + ".lora_up.weight", at::cat(deltas.second, 1));
    }
    return parts;
}

std::vector<std::string> denoiser_prefixes(const std::string& part) {
    return {part + ".", "base_model.model.", "diffusion_model.", ""};
}

Changeable changeable_denoiser(const DiffusersPart& network, const std::string& part,
                               const std::string& key) {
    Changeable made = changeable(part, denoiser_prefixes(key), {"lora_unet_", "lora_transformer_"},
                                 networks::parameters_of(network.functions()));
    if (network.class_name() == "UNet2DConditionModel") {
        const nlohmann::json config = core::read_json(network.folder() / "config.json");
        add_first_names(made, networks::SdUnet::of(core::JsonObject(
                                  config, (network.folder() / "config.json").string())));
    }
    return made;
}

}  // namespace

LowRankFile LowRankFile::of(const std::string& text) {
    LowRankFile file{text, 1};
    std::error_code ignored;
    if (const std::size_t colon = text.rfind(':');
        !fs::exists(file.path, ignored) && colon != text.npos && colon + 1 < text.size()) {
        const char *begin = text.data() + colon + 1, *end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(begin, end, file.scale);
        if (error != std::errc() || stop != end || !std::isfinite(file.scale))
            throw core::UsageError(fmt::format(
                "--lora: \"{}\" is no number; write FILE or FILE:SCALE", text.substr(colon + 1)));
        file.path = text.substr(0, colon);
    }
    if (!fs::is_regular_file(file.path, ignored))
        throw core::UsageError(fmt::format("--lora: there is no file {}", file.path.string()));
    return file;
}

PartDeltas read_low_rank(std::span<const LowRankFile> files, const DiffusersDirectory& directory) {
    if (files.empty()) return {};
    const std::string denoiser = directory.denoiser_part();
    std::vector<Changeable> networks;
    networks.reserve(3);
    networks.push_back(changeable_denoiser(directory.denoiser(), denoiser, denoiser));
    const std::vector<std::string> texts = directory.text_parts();
    for (std::size_t i = 0; i < texts.size(); ++i) {
        std::vector<std::string> flat{fmt::format("lora_te{}_", i + 1)};
        if (i == 0) flat.emplace_back("lora_te_");
        networks.push_back(
            changeable(texts[i], {texts[i] + "."}, flat, parameters_of(directory.text(texts[i]))));
    }
    return read_all(files, networks);
}

backends::Parameters read_low_rank(std::span<const LowRankFile> files,
                                   const DiffusersPart& network) {
    if (files.empty()) return {};
    const bool unet = network.class_name() == "UNet2DConditionModel";
    const std::vector<Changeable> networks{
        changeable_denoiser(network, "", unet ? "unet" : "transformer")};
    return read_all(files, networks)[""];
}

}  // namespace atelier::models
