#pragma once

#include "atelier/networks/architecture.h"
#include "atelier/networks/diffusers_network.h"
#include "atelier/networks/sd_blocks.h"

namespace atelier::networks {

/// Stable Diffusion's U-Net (Rombach et al. 2022), also SDXL's (Podell et al. 2023), as in
/// diffusers' UNet2DConditionModel, with its tensors' names.
struct SdUnet {
    struct Block {
        std::int64_t channels, layers, heads, transformers;
        bool attends;
    };
    std::int64_t in_channels = 4, out_channels = 4, sample_size = 64, context_width = 768;
    std::vector<Block> down;  // from the largest size to the smallest; up blocks mirror them except
                              // for `up_attends`
    std::vector<bool> up_attends;  // from the smallest size to the largest
    /// What SDXL's also reads: a pooled text and `numbers`, the image's sizes.
    struct Addition {
        static constexpr std::int64_t numbers = 6;
        std::int64_t pooled_width = 1280, number_width = 256;  // of one number's sinusoids
    };
    std::optional<Addition> addition;
    SdNorm norm{};
    bool cosines_first = true, freq_shift = false, linear_projections = false;

    /// Reads a unet/config.json. Throws core::Error naming file and key, also on unsupported
    /// options.
    static SdUnet of(const core::JsonObject& config);

    /// Height and width of samples must be multiples of this.
    std::int64_t factor() const { return std::int64_t{1} << (down.size() - 1); }

    struct Output {
        graph::Value predicted,
            middle;  // [N,out_channels,H,W]; the middle block's features, [N,C,H/factor,W/factor]
    };
    /// Of SDXL's: `pooled` [N,pooled_width] and `time_ids` [N,6]: height, width, the corner that
    /// the image was cropped at, and height and width again.
    struct Added {
        graph::Value pooled, time_ids;
    };
    /// `x` [N,in_channels,H,W], `t` [N] time steps, `hidden` [N,T,context_width] text states.
    Output forward(graph::Builder& ops, const graph::Value& x, const graph::Value& t,
                   const graph::Value& hidden, const std::optional<Added>& added = {}) const;

    /// Only the middle block's features, without computing what follows them.
    graph::Value encode(graph::Builder& ops, const graph::Value& x, const graph::Value& t,
                        const graph::Value& hidden) const;

    /// "denoise": x, t, hidden, and pooled and time_ids where there is an addition -> eps.
    NamedFunctions functions() const;
};

/// Wraps it as a Network: reads `unet` (diffusers' config.json) and `tokens` of a model's
/// config.json. `c_noise` is the time step, labels are the text states, the bottleneck is the
/// middle block's output.
Network build_sd_unet(const core::JsonObject& config);

/// Stable Diffusion 1's U-Net with a run's `model_channels`, `channel_mult` and `num_blocks`, and
/// its noise schedule: all levels but the lowest attend, in 8 heads, to tokens of width
/// `label_dim`.
nlohmann::json describe_sd_unet(const nlohmann::json& values, const graph::Shape& sample,
                                std::int64_t label_dim);

/// With other channels on the first level, those of the others scale, unless `sizes` has factors
/// for all levels.
nlohmann::json resized_sd_unet(nlohmann::json config, const Sizes& sizes, const std::string& where);
/// The channels of the first level.
std::int64_t width_of_sd_unet(const core::JsonObject& config);

}  // namespace atelier::networks
