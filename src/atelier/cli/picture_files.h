#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "atelier/core/image_file.h"
#include "atelier/ops/torch.h"

namespace atelier::cli {

/// How drawn images are written; the ending of --out says it, in any case: .png, .jpg, .jpeg, .webp, .npz, or none for a folder of PNGs.
enum class PictureForm { png, jpeg, webp, npz, folder };

/// Throws core::UsageError on an ending that is none of those. A device or pipe without one gets a PNG.
PictureForm picture_form(const std::string& out);

/// Throws core::Error when `out` cannot be written as such, before anything is drawn.
void check_picture_output(const std::string& out, PictureForm form);

/// Columns of a grid of `count` images: `wanted`, or `usual` for grids of up to a hundred, or as many as make a larger one about square. Throws core::UsageError when
/// the grid would be larger than the form can hold.
std::int64_t grid_columns(PictureForm form, std::int64_t count, std::int64_t height, std::int64_t width, const std::optional<std::int64_t>& wanted, std::int64_t usual);

/// Writes one image as PNG, JPEG or WebP; `text` becomes chunks of a PNG, the others hold none.
void write_picture(const std::string& out, PictureForm form, const core::Image& image, const std::map<std::string, std::string>& text);

/// The text chunks of picture `number`, or of a grid of pictures "0-15".
using PictureTexts = std::function<std::map<std::string, std::string>(const std::string& number)>;

/// Writes pictures uint8 [N,H,W,C] as `out` ends: .npz one array, .png, .jpg and .webp one picture or a grid, else a folder of PNGs. Atomically.
void write_pictures(const std::string& out, const Tensor& pictures, const PictureTexts& texts, const std::optional<std::int64_t>& columns = std::nullopt);

}  // namespace atelier::cli
