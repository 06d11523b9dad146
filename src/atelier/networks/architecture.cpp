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
         {build_adm_unet, Samples::images, of_adm, "model_channels", "num_blocks", "channel_mult"}},
        {"dit",
         {build_dit,
          Samples::images,
          {"hidden", "blocks", "patch_size", "heads"},
          "hidden",
          "blocks",
          ""}},
        {"mlp", {build_mlp, Samples::points, {"hidden", "blocks"}, "hidden", "blocks", ""}},
        {"sd_unet",
         {build_sd_unet,
          Samples::latents,
          {"model_channels", "channel_mult", "num_blocks"},
          "model_channels",
          "num_blocks",
          "channel_mult",
          describe_sd_unet,
          resized_sd_unet,
          width_of_sd_unet}},
        {"song_unet",
         {build_song_unet, Samples::images, of_unets, "model_channels", "num_blocks",
          "channel_mult"}},
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

nlohmann::json resized(nlohmann::json config, const Sizes& sizes, const std::string& where) {
    const std::string name = core::JsonObject(config, where).text("architecture");
    const Architecture& architecture = architecture_named(name, where);
    if (architecture.own_resizing)
        return architecture.own_resizing(std::move(config), sizes, where);
    set_size(config, architecture.width, sizes.width, where);
    set_size(config, architecture.depth, sizes.depth, where);
    if (sizes.levels.empty()) return config;
    if (architecture.levels.empty())
        throw core::UsageError(
            fmt::format("students.channel_mult is for U-Nets; {} has no levels", name));
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
