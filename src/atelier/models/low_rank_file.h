#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "atelier/models/diffusers_directory.h"

/// Files of low-rank deltas (LoRA) that other programs write, for diffusers directories.
namespace atelier::models {

/// A file, and the factor on its deltas.
struct LowRankFile {
    std::filesystem::path path;
    double scale = 1;

    /// Parses FILE or FILE:SCALE. Throws core::UsageError if there is no such file.
    static LowRankFile of(const std::string& text);
};

/// The deltas of all files together, for each network that they change (backends/torch/low_rank.h):
/// "unet" or "transformer", "text_encoder", "text_encoder_2". Scales and alpha over rank are part
/// of them. Keys may be diffusers' (X.lora.down, X.processor.to_q_lora.down,
/// X.lora_linear_layer.down), PEFT's (X.lora_A) or kohya's (lora_unet_X.lora_down and .alpha, also
/// with the names of Stable Diffusion's first code). Throws core::Error naming file and key: all
/// keys must be of layers of `directory`, in pairs and of fitting shapes.
PartDeltas read_low_rank(std::span<const LowRankFile> files, const DiffusersDirectory& directory);

/// The same for a network alone; there is one part, "".
backends::Parameters read_low_rank(std::span<const LowRankFile> files,
                                   const DiffusersPart& network);

}  // namespace atelier::models
