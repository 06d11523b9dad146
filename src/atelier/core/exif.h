#pragma once

#include <cstdint>
#include <span>

#include "atelier/core/image_file.h"

namespace atelier::core {

/// How EXIF data (a TIFF header and its directory, with or without "Exif\0\0" before it) say that
/// pixels lie: 1 (upright) to 8; 1 as well where they do not say, or are broken.
int exif_orientation(std::span<const std::uint8_t> exif);

/// `image`, stored in an EXIF orientation, as it is to be looked at.
Image upright(Image image, int orientation);

}  // namespace atelier::core
