#include "atelier/networks/architecture.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/schema.h"
#include "atelier/networks/adm_unet.h"
#include "atelier/networks/dit.h"
#include "atelier/networks/mlp.h"
#include "atelier/networks/sd_unet.h"
#include "atelier/networks/song_unet.h"

namespace atelier::networks {

namespace {

using Samples = Architecture::Samples;

constexpr std::int64_t largest_size = 1 << 24;  // of a width or depth; builders know the limits

std::string architectures_for(const graph::Shape& sample) {
    std::vector<std::string> names;
    for (const auto& [name, architecture] : known_architectures()) {
        if (architecture.fits(sample) && architecture.samples != Samples::latents)
            names.push_back(name);
    }
    return fmt::format("{}", fmt::join(names, " or "));
}

const char* words_for(const graph::Shape& sample) {
    return sample.size() == 1 ? "points" : "images";
}

/// Replaces the value of `key`, which must be there.
void set_size(nlohmann::json& config, const std::string& key, std::optional<std::int64_t> value,
              const std::string& where) {
    core::JsonObject(config, where).integer(key, 1, largest_size);
    if (value) config[key] = *value;
}

/// What a U-Net's levels ask of a side: each but the first halves it. Builders know how many there
/// may be.
std::int64_t halvings(const nlohmann::json& config) {
    constexpr std::size_t most = 32;
    return std::int64_t{1} << (std::clamp<std::size_t>(config.at("channel_mult").size(), 1, most) -
                               1);
}

std::int64_t patches(const nlohmann::json& config) {
    return config.at("patch_size").get<std::int64_t>();
}

std::int64_t patches_and_halvings(const nlohmann::json& config) {
    return patches(config) * halvings(config);
}

/// Patches with which the side would fit, as a remedy; empty where there is none.
std::string fitting_patches(const Architecture& architecture, nlohmann::json config,
                            std::int64_t side) {
    constexpr std::int64_t largest_patch = 16;
    if (!architecture.reads("patch_size")) return "";
    std::vector<std::int64_t> patches;
    for (std::int64_t patch = 1; patch <= largest_patch; ++patch) {
        config["patch_size"] = patch;
        if (side % architecture.side_unit(config) == 0) patches.push_back(patch);
    }
    if (patches.empty()) return "";
    return fmt::format("network.patch_size = {}", fmt::join(patches, ", "));
}

std::vector<graph::ParameterSpec> parameters_of(const nlohmann::json& config) {
    const Network network = make_network(core::JsonObject(config, "config.json"));
    return graph_of(network, input_shapes(network, true))->parameters;
}

}  // namespace

bool Architecture::reads(const std::string& key) const {
    return std::ranges::find(keys, key) != keys.end();
}

bool Architecture::fits(const graph::Shape& sample) const {
    return sample.size() == (samples == Samples::points ? 1 : 3);
}

const std::map<std::string, Architecture>& known_architectures() {
    static const std::vector<std::string> of_unets{"model_channels", "channel_mult", "num_blocks",
                                                   "attention_resolutions", "channel_mult_emb"};
    static const std::vector<std::string> of_adm = [] {
        std::vector<std::string> keys = of_unets;
        keys.emplace_back("patch_size");
        return keys;
    }();
    static const std::map<std::string, Architecture> all{
        {"adm_unet",
         {
             .build = build_adm_unet,
             .samples = Samples::images,
             .keys = of_adm,
             .width = "model_channels",
             .depth = "num_blocks",
             .levels = "channel_mult",
             .side_unit = patches_and_halvings,
             .side_keys = {"patch_size", "channel_mult"},
         }},
        {"dit",
         {
             .build = build_dit,
             .samples = Samples::images,
             .keys = {"hidden", "blocks", "patch_size", "heads"},
             .width = "hidden",
             .depth = "blocks",
             .side_unit = patches,
             .side_keys = {"patch_size"},
         }},
        {"mlp",
         {
             .build = build_mlp,
             .samples = Samples::points,
             .keys = {"hidden", "blocks"},
             .width = "hidden",
             .depth = "blocks",
         }},
        {"sd_unet",
         {
             .build = build_sd_unet,
             .samples = Samples::latents,
             .keys = {"model_channels", "channel_mult", "num_blocks"},
             .width = "model_channels",
             .depth = "num_blocks",
             .levels = "channel_mult",
             .own_description = describe_sd_unet,
             .own_resizing = resized_sd_unet,
             .own_width = width_of_sd_unet,
         }},
        {"song_unet",
         {
             .build = build_song_unet,
             .samples = Samples::images,
             .keys = of_unets,
             .width = "model_channels",
             .depth = "num_blocks",
             .levels = "channel_mult",
             .side_unit = halvings,
             .side_keys = {"channel_mult"},
         }},
    };
    return all;
}

std::vector<std::string> architectures() {
    std::vector<std::string> names;
    for (const auto& [name, architecture] : known_architectures()) names.push_back(name);
    return names;
}

const Architecture& architecture_named(const std::string& name, const std::string& where) {
    const auto found = known_architectures().find(name);
    if (found == known_architectures().end()) {
        core::fail("{}: architecture \"{}\" is unknown{}; known are {}", where, name,
                   core::did_you_mean(name, architectures()), fmt::join(architectures(), ", "));
    }
    return found->second;
}

nlohmann::json describe(const std::string& architecture, const nlohmann::json& values,
                        const graph::Shape& sample, std::int64_t label_dim) {
    const Architecture& wanted = architecture_named(architecture, "network.architecture");
    if (!wanted.fits(sample)) {
        throw core::UsageError(
            fmt::format("network.architecture = \"{}\" is for {}; the data are {}, use {}",
                        architecture, wanted.samples == Samples::points ? "points" : "images",
                        words_for(sample), architectures_for(sample)));
    }
    nlohmann::json config{{"architecture", architecture}};
    if (wanted.own_description) {
        config.update(wanted.own_description(values, sample, label_dim));
        return config;
    }
    config["classes"] = label_dim;
    if (wanted.samples == Samples::points) {
        config["dimensions"] = sample[0];
    } else {
        config["channels"] = sample[0];
        config["resolution"] = sample[1];
    }
    for (const std::string& key : wanted.keys) config[key] = values.at(key);
    return config;
}

void check_side(const nlohmann::json& config, const graph::Shape& sample) {
    const auto name = config.at("architecture").get<std::string>();
    const Architecture& architecture = architecture_named(name, "network.architecture");
    if (architecture.side_unit == nullptr) return;
    const std::int64_t side = sample.back(), unit = architecture.side_unit(config);
    if (side % unit == 0) return;
    std::vector<std::string> decisive;
    for (const std::string& key : architecture.side_keys)
        decisive.push_back(fmt::format("network.{} = {}", key, config.at(key).dump()));
    std::string remedy = fitting_patches(architecture, config, side);
    if (remedy.empty()) remedy = fmt::format("fewer levels (network.{})", architecture.levels);
    const std::string sides =
        side > unit ? fmt::format("{} or {}", side / unit * unit, (side / unit + 1) * unit)
                    : std::to_string(unit);
    throw core::UsageError(fmt::format(
        "images of {0}x{0} (data.shape) do not fit {1} with {2}: the side must be a multiple of "
        "{3}. For {0} pixels take {4}; or import the images at {5} pixels",
        side, name, fmt::join(decisive, " and "), unit, remedy, sides));
}

std::string readers_of(const std::string& key) {
    std::vector<std::string> names;
    for (const auto& [name, architecture] : known_architectures()) {
        if (architecture.reads(key)) names.push_back(name);
    }
    return fmt::format("{}", fmt::join(names, ", "));
}

nlohmann::json resized(nlohmann::json config, const Sizes& sizes, const std::string& where) {
    const std::string name = core::JsonObject(config, where).text("architecture");
    const Architecture& architecture = architecture_named(name, where);
    if (architecture.own_resizing)
        return architecture.own_resizing(std::move(config), sizes, where);
    set_size(config, architecture.width, sizes.width, where);
    set_size(config, architecture.depth, sizes.depth, where);
    if (sizes.levels.empty()) return config;
    if (architecture.levels.empty())
        throw core::UsageError(fmt::format("students.channel_mult is for {}; {} has no levels",
                                           readers_of("channel_mult"), name));
    config[architecture.levels] = sizes.levels;
    return config;
}

std::int64_t width_of(const nlohmann::json& config, const std::string& where) {
    const core::JsonObject object(config, where);
    const Architecture& architecture = architecture_named(object.text("architecture"), where);
    if (architecture.own_width) return architecture.own_width(object);
    return object.integer(architecture.width, 1, largest_size);
}

bool same_parameters(const nlohmann::json& a, const nlohmann::json& b) {
    const auto same = [](const graph::ParameterSpec& one, const graph::ParameterSpec& other) {
        return one.name == other.name && one.shape == other.shape;
    };
    return std::ranges::equal(parameters_of(a), parameters_of(b), same);
}

}  // namespace atelier::networks
