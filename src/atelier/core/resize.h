#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "atelier/core/image_file.h"

namespace atelier::core {

/// What a new pixel takes of the pixels around its place: windowed sincs over six of the coarser grid's pixels, cubics over four (a = -0.5), a triangle over two.
/// Shrinking widens each, so that nothing aliases. They are Pillow's LANCZOS, BICUBIC and BILINEAR, to the byte.
enum class ResizeFilter { lanczos, bicubic, triangle };

/// "lanczos", "bicubic", "triangle".
const std::vector<std::string>& resize_filter_names();
/// Throws UsageError when there is no such filter.
ResizeFilter resize_filter(std::string_view name);
const std::string& name_of(ResizeFilter filter);

/// `image` scaled to `height` x `width` pixels.
Image resized(const Image& image, int height, int width, ResizeFilter filter);

/// The weights of such a scaling of `from` pixels to `to`, not rounded: a matrix [to,from] in C
/// order, each row's sum 1. For images that are not of bytes.
std::vector<float> filter_matrix(int from, int to, ResizeFilter filter);

/// The largest centred square of `image`, scaled to `side` pixels.
Image square(const Image& image, int side, ResizeFilter filter);

/// All of `image`, scaled so that its longer side has `side` pixels, in the middle of a square of `background` (red, green, blue; of grey images the first counts).
Image padded_square(const Image& image, int side, ResizeFilter filter, const Colour& background);

/// With 3 channels grey spreads to RGB, with 1 colours become their luminance (ITU-R BT.601).
Image with_channels(const Image& image, int channels);

}  // namespace atelier::core
