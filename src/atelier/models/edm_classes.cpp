#include "atelier/models/edm_classes.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/networks/unet_blocks.h"

namespace atelier::models {

namespace {

using core::PickleValue;
using nlohmann::json;

/// A constructor argument: EDM's name and default, and the corresponding key of config.json.
struct Argument {
    const char* name;
    const char* key;
    json fallback;
};

// In constructor order; arguments without a key do not affect a trained network.
const std::vector<Argument>& arguments_of_song_unet() {
    static const std::vector<Argument> all{
        {"img_resolution", "resolution", {}},
        {"in_channels", "channels", {}},
        {"out_channels", nullptr, {}},
        {"label_dim", "classes", 0},
        {"augment_dim", "augment_dim", 0},
        {"model_channels", "model_channels", 128},
        {"channel_mult", "channel_mult", {1, 2, 2, 2}},
        {"channel_mult_emb", "channel_mult_emb", 4},
        {"num_blocks", "num_blocks", 4},
        {"attn_resolutions", "attention_resolutions", json::array({16})},
        {"dropout", nullptr, 0.1},
        {"label_dropout", nullptr, 0},
        {"embedding_type", "embedding_type", "positional"},
        {"channel_mult_noise", "channel_mult_noise", 1},
        {"encoder_type", "encoder_type", "standard"},
        {"decoder_type", "decoder_type", "standard"},
        {"resample_filter", "resample_filter", {1, 1}}};
    return all;
}

const std::vector<Argument>& arguments_of_adm() {
    static const std::vector<Argument> all{
        {"img_resolution", "resolution", {}},
        {"in_channels", "channels", {}},
        {"out_channels", nullptr, {}},
        {"label_dim", "classes", 0},
        {"augment_dim", "augment_dim", 0},
        {"model_channels", "model_channels", 192},
        {"channel_mult", "channel_mult", {1, 2, 3, 4}},
        {"channel_mult_emb", "channel_mult_emb", 4},
        {"num_blocks", "num_blocks", 3},
        {"attn_resolutions", "attention_resolutions", {32, 16, 8}},
        {"dropout", nullptr, 0.1},
        {"label_dropout", nullptr, 0}};
    return all;
}

struct NetworkClass {
    const char* name;
    const char* architecture;
    const std::vector<Argument>& (*arguments)();
};
constexpr NetworkClass network_classes[]{
    {"SongUNet", "song_unet", arguments_of_song_unet},
    {"DhariwalUNet", "adm_unet", arguments_of_adm},
};

struct DenoiserClass {
    const char* name;
    const char* preconditioning;
    std::vector<std::pair<const char*, const char*>>
        constants;  // attributes and the corresponding keys
};
const std::vector<DenoiserClass>& denoiser_classes() {
    static const std::vector<DenoiserClass> all{
        {"EDMPrecond", "edm", {{"sigma_data", "sigma_data"}}},
        {"VPPrecond", "vp", {{"beta_d", "beta_d"}, {"beta_min", "beta_min"}, {"M", "timesteps"}}},
        {"VEPrecond", "ve", {}}};
    return all;
}

json json_of(const PickleValue& value, const std::string& where) {
    if (value.is_text()) return std::string(value.text());
    if (value.is_integer()) return value.integer();
    if (value.is_number()) return value.real();
    json list = json::array();
    for (const PickleValue& item : value.items()) {
        if (!item.is_number())
            core::fail("{}: a list among the network's arguments holds values other than numbers",
                       where);
        list.push_back(json_of(item, where));
    }
    return list;
}

/// The argument's value in the constructor call: by name, by position, or EDM's default.
json argument_of(const EdmObject& object, const Argument& argument, std::size_t position,
                 const std::string& where) {
    const PickleValue named = object.state["_init_kwargs"];
    if (const PickleValue value = named[argument.name]; !value.is_none())
        return json_of(value, where);
    const auto positional = object.state["_init_args"].items();
    if (position < positional.size()) return json_of(positional[position], where);
    if (argument.fallback.is_null())
        core::fail("{}: the {} was made without {}", where, object.class_name, argument.name);
    return argument.fallback;
}

/// Levels outside the range that samplers use (EDM's 0 and infinity) become the defaults.
void set_range(json& config, const PickleValue& state, const std::string& where) {
    const auto defaults = diffusion::NoiseSchedule::read(core::JsonObject(config, where));
    const bool edm = config["preconditioning"] == "edm";
    const auto level = [&](const char* name, double fallback) {
        return state[name].is_number() ? state[name].real() : fallback;
    };
    const double low = level("sigma_min", defaults.sigma_min),
                 high = level("sigma_max", defaults.sigma_max);
    config["sigma_min"] = edm ? std::max(low, defaults.sigma_min) : low;
    config["sigma_max"] = edm ? std::min(high, defaults.sigma_max) : high;
}

const NetworkClass& class_of(const ModelCard& model) {
    const auto architecture = [](const NetworkClass& entry) {
        return std::string(entry.architecture);
    };
    const auto found = std::ranges::find(network_classes, model.network.architecture, architecture);
    if (found == std::end(network_classes))
        core::fail("a network of architecture {} is none of EDM's", model.network.architecture);
    return *found;
}

/// Names of the resampling modules that EDM's constructors create.
std::vector<std::string> resampling_modules(const core::JsonObject& config) {
    const std::int64_t levels =
        static_cast<std::int64_t>(config.integers("channel_mult", 1, 64).size());
    const std::string encoder = config.text_or("encoder_type", "standard"),
                      decoder = config.text_or("decoder_type", "standard");
    std::vector<std::string> names;
    for (std::int64_t level = 0; level < levels; ++level) {
        const std::int64_t resolution = config.integer("resolution", 1, 4096) >> level;
        const auto add = [&](const char* half, const char* what) {
            names.push_back(networks::level_name(half, resolution, what));
        };
        if (level > 0) {
            for (const char* what : {"down.conv0", "down.skip"}) add("enc", what);
            if (encoder == "skip") add("enc", "aux_down");
            if (encoder == "residual") add("enc", "aux_residual");
        }
        if (level + 1 < levels) {
            for (const char* what : {"up.conv0", "up.skip"}) add("dec", what);
            if (decoder == "skip") add("dec", "aux_up");
        }
    }
    return names;
}

}  // namespace

json edm_config(const EdmObject& denoiser, const EdmObject& network, const std::string& where) {
    const auto outer =
        std::ranges::find(denoiser_classes(), denoiser.class_name,
                          [](const DenoiserClass& entry) { return std::string(entry.name); });
    if (outer == denoiser_classes().end())
        core::fail("{}: holds a {}; known are EDMPrecond, VPPrecond and VEPrecond", where,
                   denoiser.class_name);
    const auto inner =
        std::ranges::find(network_classes, network.class_name,
                          [](const NetworkClass& entry) { return std::string(entry.name); });
    if (inner == std::end(network_classes))
        core::fail("{}: its network is a {}; known are SongUNet and DhariwalUNet", where,
                   network.class_name);
    json config{{"architecture", inner->architecture}, {"preconditioning", outer->preconditioning}};
    std::size_t position = 0;
    for (const Argument& argument : inner->arguments()) {
        const json value = argument_of(network, argument, position++, where);
        if (argument.key != nullptr) config[argument.key] = value;
        if (std::string_view(argument.name) == "out_channels" && value != config["channels"]) {
            core::fail("{}: its network makes {} channels of {}; they must be as many", where,
                       value.dump(), config["channels"].dump());
        }
    }
    for (const auto& [attribute, key] : outer->constants)
        config[key] = denoiser.state[attribute].real();
    set_range(config, denoiser.state, where);
    config["provenance"] = {
        {"from", fmt::format("{} of {}", denoiser.class_name, network.class_name)}};
    return config;
}

std::pair<std::string, json> edm_arguments(const ModelCard& model) {
    const NetworkClass& inner = class_of(model);
    const int patch_size = model.config.value("patch_size", 1);
    if (patch_size != 1)
        core::fail("EDM's U-Nets have no patches; this model's patch_size is {}", patch_size);
    const auto preconditioning = [](const DenoiserClass& entry) {
        return std::string(entry.preconditioning);
    };
    const auto outer = std::ranges::find(
        denoiser_classes(), model.config.value("preconditioning", "edm"), preconditioning);
    json arguments{{"img_resolution", model.network.data_shape[1]},
                   {"img_channels", model.network.data_shape[0]},
                   {"label_dim", model.network.label_dim},
                   {"model_type", inner.name}};
    for (const auto& [attribute, key] : outer->constants) {
        if (model.config.contains(key)) arguments[attribute] = model.config[key];
    }
    for (const Argument& argument : inner.arguments()) {
        const bool already_given = argument.key == nullptr ||
                                   std::string_view(argument.key) == "resolution" ||
                                   std::string_view(argument.key) == "channels" ||
                                   std::string_view(argument.key) == "classes";
        if (!already_given)
            arguments[argument.name] = model.config.contains(argument.key)
                                           ? model.config[argument.key]
                                           : argument.fallback;
    }
    return {outer->name, arguments};
}

backends::Parameters edm_buffers(const core::JsonObject& config) {
    const auto taps = config.has("resample_filter") ? config.integers("resample_filter", 0, 1000)
                                                    : std::vector<std::int64_t>{1, 1};
    const Tensor row = at::tensor(taps, at::kFloat);
    const Tensor filter = (at::outer(row, row) / row.sum().square()).unsqueeze(0).unsqueeze(0);
    backends::Parameters buffers;
    for (const std::string& name : resampling_modules(config))
        buffers.set(name + ".resample_filter", filter);
    return buffers;
}

}  // namespace atelier::models
