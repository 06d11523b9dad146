#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "atelier/core/image_file.h"

namespace atelier::core {

/// Kernel of a new pixel around its position: windowed sinc over six pixels of the coarser grid,
/// cubic over four (a = -0.5), triangle over two. Kernels widen when shrinking, so that nothing
/// aliases. They match Pillow's LANCZOS, BICUBIC and BILINEAR exactly.
enum class ResizeFilter { lanczos, bicubic, triangle };

/// "lanczos", "bicubic", "triangle".
const std::vector<std::string>& resize_filter_names();
/// Throws UsageError when there is no such filter.
ResizeFilter resize_filter(std::string_view name);
const std::string& name_of(ResizeFilter filter);

/// `image` scaled to `height` x `width` pixels.
Image resized(const Image& image, int height, int width, ResizeFilter filter);

/// The unrounded weights of scaling `from` pixels to `to`: a matrix [to,from] in C order whose rows
/// sum to 1. For images that are not bytes.
std::vector<float> filter_matrix(int from, int to, ResizeFilter filter);

/// The largest centred square of `image`, scaled to `side` pixels.
Image centre_crop(const Image& image, int side, ResizeFilter filter);

/// All of `image`, scaled so that its longer side has `side` pixels, centred on a square of
/// `background` (red, green, blue; for grey images the first value).
Image padded_square(const Image& image, int side, ResizeFilter filter, const Colour& background);

/// Converts to 3 channels by repeating grey, or to 1 by the luminance (ITU-R BT.601).
Image with_channels(const Image& image, int channels);

}  // namespace atelier::core
