#pragma once

#include <string>

#include "atelier/core/error.h"
#include "atelier/networks/network.h"

namespace atelier::networks {

/// What the blocks of one U-Net have in common and what differs between U-Nets.
struct UNetStyle {
    bool modulated = true;  // the embedding scales and shifts norm1's output; otherwise it is added
                            // to norm1's input
    bool one_head = false;  // of attention, instead of EDM's rule (attention_heads)
    bool projected_resampling =
        false;  // a resampled skip gets a 1x1 convolution even if its channels do not change
    double skip_scale = 1.0;  // of each sum with a skip
    double eps = 1e-5;
    graph::Init init{}, last_init = graph::zeros, attention_init{};
};

/// ADM's, and that of DDPM++ and NCSN++ (NVlabs/edm:training/networks.py).
inline constexpr UNetStyle adm_style{};
extern const UNetStyle song_style;

struct UNetBlock {
    std::int64_t out_channels;
    graph::Resample resample =
        graph::Resample::none;  // of the input, before the first convolution and on the skip
    bool attention = false;     // only where there are enough channels for a head
    const UNetStyle& style = adm_style;
};

struct UNetNorm {
    bool silu = false;
    std::optional<graph::Value> modulation{};
    double eps = adm_style.eps;
};

/// "model.enc.16x16_conv": the name of a layer on a level of the encoder (`half` is "enc") or the
/// decoder ("dec").
std::string level_name(const char* half, std::int64_t resolution, const std::string& what);

/// Throws core::Error that names the keys of the architecture's sizes.
[[noreturn]] void reject_sizes(const std::string& architecture, const std::string& where,
                               const std::string& why);

/// The network of a U-Net's config, recorded once, with the label embedding "model.map_label".
/// Throws core::Error beginning with `where` when its sizes do not fit together.
template <class Config>
Network unet_network(const char* architecture, const Config& config,
                     Outputs (*forward)(graph::Builder&, const Config&, const Inputs&),
                     graph::Value (*encode)(graph::Builder&, const Config&, const Inputs&),
                     const std::string& where) {
    Network network;
    network.architecture = architecture;
    network.data_shape = {config.channels, config.resolution, config.resolution};
    network.label_dim = config.classes;
    network.augment_dim = config.augment_dim;
    if (config.classes > 0) network.label_embedding = "model.map_label.weight";
    network.forward = [=](graph::Builder& ops, const Inputs& inputs) {
        return forward(ops, config, inputs);
    };
    network.encode = [=](graph::Builder& ops, const Inputs& inputs) {
        return encode(ops, config, inputs);
    };
    try {
        trace(network);
    } catch (const core::Error& error) {
        reject_sizes(architecture, where, error.what());
    }
    return network;
}

/// The residual block of EDM's U-Nets (NVlabs/edm:training/networks.py): `x` [N,C,H,W], `embedding`
/// [N,E].
graph::Value unet_block(graph::Builder& ops, const graph::Value& x, const graph::Value& embedding,
                        const std::string& name, const UNetBlock& options);

/// One head per 64 channels (EDM's rule): none below 64, in which case a block has no attention.
std::int64_t attention_heads(std::int64_t channels);

/// GroupNorm with min(32, C/4) groups.
graph::Value unet_norm(graph::Builder& ops, const graph::Value& x, const std::string& name,
                       const UNetNorm& options = {});

}  // namespace atelier::networks
