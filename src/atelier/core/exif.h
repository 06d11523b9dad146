#pragma once

#include <cstdint>
#include <span>

#include "atelier/core/image_file.h"

namespace atelier::core {

/// The orientation in EXIF data (a TIFF header and its directory, with or without "Exif\0\0" before
/// it): 1 (upright) to 8; 1 also where none is given or the data is broken.
int exif_orientation(std::span<const std::uint8_t> exif);

/// `image`, stored in an EXIF orientation, rotated and mirrored to be upright.
Image apply_orientation(Image image, int orientation);

}  // namespace atelier::core
