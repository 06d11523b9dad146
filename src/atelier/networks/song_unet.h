#pragma once

#include <vector>

#include "atelier/networks/network.h"

namespace atelier::networks {

/// The U-Nets of Song et al. 2021 as trained by EDM (its SongUNet), with EDM's parameter names
/// under "model.": DDPM++ with the defaults, NCSN++ with Fourier features of twice the width, a
/// residual encoder and smooth resampling.
struct SongUNetConfig {
    enum class Encoder { standard, skip, residual };
    enum class Decoder { standard, skip };
    std::int64_t resolution = 32;
    std::int64_t channels = 3;
    std::int64_t classes = 0;
    std::int64_t augment_dim = 0;
    std::int64_t model_channels = 128;
    std::vector<std::int64_t> channel_mult{1, 2, 2, 2};
    std::int64_t channel_mult_emb = 4;
    std::int64_t channel_mult_noise = 1;
    std::int64_t num_blocks = 4;
    std::vector<std::int64_t> attention_resolutions{16};
    bool fourier = false;  // Fourier embedding of the noise level; otherwise positional
    Encoder encoder = Encoder::standard;
    Decoder decoder = Decoder::standard;
    bool smooth = false;  // resamples with [1,3,3,1]; otherwise with [1,1]
};

/// F(x; c_noise, labels): `x` [N,channels,resolution,resolution] -> the same shape, and the
/// bottleneck.
Outputs song_unet(graph::Builder& ops, const SongUNetConfig& config, const Inputs& inputs);

/// The output of the last encoder block, [N, C, resolution/2^(levels-1), ...].
graph::Value song_unet_bottleneck(graph::Builder& ops, const SongUNetConfig& config,
                                  const Inputs& inputs);

/// Reads a model's config.json: SongUNetConfig's keys, and EDM's `embedding_type`, `encoder_type`,
/// `decoder_type` and `resample_filter`.
Network build_song_unet(const core::JsonObject& config);

}  // namespace atelier::networks
