#pragma once

#include <map>

#include "atelier/networks/network.h"

/// The architectures, and how a config.json describes and resizes them: what training needs to know
/// of a network beside its function.
namespace atelier::networks {

/// Other sizes of a network; those that are unset stay.
struct Sizes {
    std::optional<std::int64_t> width, depth;
    std::vector<std::int64_t> levels{};  // width factors, one per level
};

/// The value of `architecture` in a config.json.
struct Architecture {
    enum class Samples { images, points, latents };

    Network (*build)(const core::JsonObject& config);
    Samples samples;
    std::vector<std::string> keys;  // of config.json, which a run's config sets as network.KEY
    /// Those of `keys` that students.widths, students.depths and students.channel_mult replace;
    /// empty where there is none.
    std::string width, depth, levels;
    /// What the side of a sample must be a multiple of, for a config.json; null where any fits, or
    /// the builder says which. `side_keys` are those of `keys` that decide it, for messages.
    std::int64_t (*side_unit)(const nlohmann::json& config) = nullptr;
    std::vector<std::string> side_keys{};
    /// For a config.json of another form: what `describe` and `resized` do.
    nlohmann::json (*own_description)(const nlohmann::json& values, const graph::Shape& sample,
                                      std::int64_t label_dim) = nullptr;
    nlohmann::json (*own_resizing)(nlohmann::json config, const Sizes& sizes,
                                   const std::string& where) = nullptr;
    std::int64_t (*own_width)(const core::JsonObject& config) = nullptr;

    bool reads(const std::string& key) const;
    /// Whether samples of this shape, [D] or [C,H,W], can be of its kind.
    bool fits(const graph::Shape& sample) const;
};

/// All, by name: a new one needs one line in architecture.cpp.
const std::map<std::string, Architecture>& known_architectures();

/// Throws core::Error, beginning with `where`, when there is none of that name.
const Architecture& architecture_named(const std::string& name, const std::string& where);

/// The part of a config.json that says what the network is, for samples of this shape and labels
/// `label_dim` wide. `values` has those of the architecture's keys. Throws core::UsageError when
/// the architecture is for other samples, saying which are for these.
nlohmann::json describe(const std::string& architecture, const nlohmann::json& values,
                        const graph::Shape& sample, std::int64_t label_dim);

/// Throws core::UsageError where the side of samples like `sample` does not fit the sizes of a
/// config.json that `describe` made, saying which would: patches, or sides.
void check_side(const nlohmann::json& config, const graph::Shape& sample);

/// The architectures that read a key, "adm_unet, song_unet": for help texts.
std::string readers_of(const std::string& key);

/// The config.json of a network that differs from `config`'s in its sizes. Throws core::Error,
/// beginning with `where`, when the config lacks a size, and core::UsageError when it has no such
/// size.
nlohmann::json resized(nlohmann::json config, const Sizes& sizes, const std::string& where);

/// The width of a config.json's network, which Sizes::width replaces. Throws core::Error, beginning
/// with `where`, when the config lacks it.
std::int64_t width_of(const nlohmann::json& config, const std::string& where);

/// Whether the networks of two config.json, without text towers, have parameters of the same names
/// and shapes, so that one can start from the other's weights.
bool same_parameters(const nlohmann::json& a, const nlohmann::json& b);

}  // namespace atelier::networks
