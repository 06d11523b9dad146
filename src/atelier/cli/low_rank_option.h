#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "atelier/models/low_rank_file.h"

namespace atelier::cli {

/// --lora FILE[:SCALE], repeatable.
inline void add_low_rank_option(CLI::App& command, std::vector<std::string>& files) {
    command
        .add_option("--lora", files,
                    "low-rank deltas on the networks of a diffusers directory: a safetensors file "
                    "with the keys of diffusers, PEFT or kohya; repeatable; the scale is 1 unless "
                    "given")
        ->type_name("FILE[:SCALE]")
        ->allow_extra_args(false);
}

/// The files that the option names. Throws core::UsageError on one that does not exist.
inline std::vector<models::LowRankFile> low_rank_files(const std::vector<std::string>& texts) {
    std::vector<models::LowRankFile> files;
    for (const std::string& text : texts) files.push_back(models::LowRankFile::of(text));
    return files;
}

}  // namespace atelier::cli
