#pragma once

#include "atelier/core/image_file.h"

namespace atelier::core {

/// The largest centred square of `image`, scaled to `side` pixels: each new pixel is the average of those around its place, weighed by a triangle that is as wide
/// as two pixels of the coarser grid, so that shrinking does not alias (as Pillow's BILINEAR).
Image square(const Image& image, int side);

/// With 3 channels grey spreads to RGB, with 1 colours become their luminance (ITU-R BT.601).
Image with_channels(const Image& image, int channels);

}  // namespace atelier::core
