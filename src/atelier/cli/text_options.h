#pragma once

#include <optional>
#include <string>

#include <CLI/CLI.hpp>

namespace atelier::cli {

/// Options of sampling from models that read prompts.
struct TextOptions {
    std::optional<std::string> prompt, negative;
    std::optional<double> guidance;
    std::optional<std::int64_t> height, width;

    bool given() const { return guidance || given_beyond_guidance(); }
    bool given_beyond_guidance() const { return prompt || negative || height || width; }

    void add_to(CLI::App& command) {
        command.add_option("--prompt", prompt, "what to draw, with models that read prompts");
        command.add_option("--negative", negative,
                           "what guidance leads away from; without: the empty prompt");
        command
            .add_option(
                "--guidance", guidance,
                "classifier-free guidance; 1: none; without: as diffusers' pipeline guides "
                "(7.5 for Stable Diffusion 1 and 2), or as a teacher of captions was guided")
            ->check(CLI::Range(0.0, 100.0));
        command
            .add_option("--height", height,
                        "of the image in pixels; without: as the model was trained")
            ->check(CLI::Range(8, 8192));
        command
            .add_option("--width", width,
                        "of the image in pixels; without: as the model was trained")
            ->check(CLI::Range(8, 8192));
    }
};

}  // namespace atelier::cli
