#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/image_file.h"

namespace atelier::cli {

/// How sampled images are written, selected by the case-insensitive extension of --out: .png, .jpg,
/// .jpeg, .webp, .npz, or none for a folder of PNGs.
enum class ImageFormat { png, jpeg, webp, npz, folder };

/// Throws core::UsageError on any other extension. A device or pipe without one is written as PNG.
ImageFormat image_format(const std::string& out);

/// Throws core::Error when `out` cannot be written in that format; for use before sampling.
void check_image_output(const std::string& out, ImageFormat format);

/// Columns of a grid of `count` images: `requested` if given, `default_columns` for grids of up to
/// a hundred images, otherwise about square. Throws core::UsageError when the grid exceeds the
/// format's maximum size.
std::int64_t grid_columns(ImageFormat format, std::int64_t count, std::int64_t height,
                          std::int64_t width, const std::optional<std::int64_t>& requested,
                          std::int64_t default_columns);

/// Writes one image as PNG, JPEG or WebP; `text` becomes text chunks of a PNG and is dropped
/// otherwise.
void write_image(const std::string& out, ImageFormat format, const core::Image& image,
                 const std::map<std::string, std::string>& text);

using ImageText = std::map<std::string, std::string>;

/// What is written beside samples, and how they are laid out.
struct SampleOutput {
    std::function<ImageText(std::int64_t i)> texts;  // the text chunks of image i
    std::function<ImageText()> grid_text;            // of a grid of several images
    std::vector<std::int64_t> labels{};              // an array beside them in .npz; may be empty
    std::optional<std::int64_t> columns{};           // of a grid
    std::int64_t default_columns = 10;
};

/// Atomically writes samples, images uint8 [N,H,W,C] or points float32 [N,D], in the format of
/// `out`: .npz arrays; images also .png, .jpg and .webp, one image or a grid, or a folder of PNGs.
void write_samples(const std::string& out, const Tensor& samples, const SampleOutput& output);

}  // namespace atelier::cli
