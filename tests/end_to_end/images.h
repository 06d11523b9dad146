#pragma once

#include <cmath>
#include <cstdint>
#include <random>

#include "atelier/core/image_file.h"
#include "end_to_end/program.h"

namespace atelier::end_to_end {

/// One of four shapes on two kinds of background (eight labels) with random position, size and
/// colours.
inline core::Image synthetic_image(int side, int label, std::mt19937& random) {
    // From raw random numbers, since the standard distributions differ among libraries.
    const auto uniform = [&](double low, double high) {
        return low + (high - low) * static_cast<double>(random()) / 4294967296.0;
    };
    const int shape = label % 4;
    const bool striped = label >= 4;
    const double x0 = side * uniform(0.4, 0.6), y0 = side * uniform(0.4, 0.6),
                 radius = side * uniform(0.22, 0.34), phase = uniform(0, 6.28);
    const double tint = uniform(-25, 25);
    // One colour per shape, distinct from the background.
    static const double colours[4][3]{{220, 70, 60}, {70, 190, 80}, {80, 110, 225}, {225, 195, 70}};
    core::Image image{side, side, 3, {}};
    for (int y = 0; y < side; ++y) {
        for (int x = 0; x < side; ++x) {
            const double dx = x - x0, dy = y - y0, distance = std::hypot(dx, dy),
                         box = std::max(std::abs(dx), std::abs(dy));
            const bool inside[4]{
                distance < radius, box < 0.85 * radius,
                distance < radius && distance > 0.5 * radius,
                box < radius && std::min(std::abs(dx), std::abs(dy)) < 0.35 * radius};
            const double background =
                striped ? 90 + 60 * std::sin(6.28 * y / (side / 4.0) + phase) : 40 + 1.5 * tint;
            for (int c = 0; c < 3; ++c) {
                const double value = inside[shape] ? colours[shape][c] + tint : background;
                image.pixels.push_back(static_cast<std::uint8_t>(std::clamp(value, 0.0, 255.0)));
            }
        }
    }
    return image;
}

/// Writes `folder`/<class>/<number>.png.
inline void write_images(const std::string& folder, int count, int side, std::uint32_t seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < count; ++i) {
        const int label = i % 8;
        core::write_png(fs::path(folder) / ("kind" + std::to_string(label)) /
                            (std::to_string(10000 + i) + ".png"),
                        synthetic_image(side, label, random));
    }
}

/// The words of a run on `pictures` (write_images, 8 pixels) with the smallest networks of
/// configs/imagenet64-msd4-small.toml: TSM, DM and ADM of two students.
inline Arguments small_run(const std::string& pictures) {
    return {"run",
            std::string(ATELIER_SOURCE_DIR) + "/configs/imagenet64-msd4-small.toml",
            "data.path=" + pictures,
            "data.shape=[3,8,8]",
            "data.classes=8",
            "teacher.path=",
            "network.model_channels=16",
            "network.channel_mult=[1,2]",
            "network.num_blocks=1",
            "network.attention_resolutions=[4]",
            "threads=1",
            "students.threads=1",
            "partition.students=2",
            "students.widths=[8]",
            "students.channel_mult=[1,2]",
            "students.depths=[1]",
            "probe.every=2",
            "probe.count=16",
            "probe.batch=8",
            "evaluate.count=16",
            "evaluate.steps=2"};
}

/// Grey 28x28 images with captions; the first half is darker.
inline void write_captioned(const std::string& folder, int count) {
    fs::create_directory(folder);
    for (int i = 0; i < count; ++i) {
        const std::string name = folder + "/" + std::to_string(1000 + i);
        core::Image image{28, 28, 1, {}};
        for (int p = 0; p < 28 * 28; ++p)
            image.pixels.push_back(
                static_cast<std::uint8_t>((p * (i + 3)) % 97 + (i < count / 2 ? 0 : 120)));
        core::write_png(name + ".png", image);
        std::ofstream(name + ".txt")
            << "a " << (i < count / 2 ? "dark" : "bright") << " badge, number " << i << "\n";
    }
}

}  // namespace atelier::end_to_end
