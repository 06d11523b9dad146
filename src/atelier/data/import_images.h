#pragma once

#include <filesystem>
#include <functional>

#include "atelier/core/resize.h"
#include "atelier/data/encoded_images.h"

namespace atelier::data {

/// Images of any sizes at a path: a folder (a sub-folder a class), a zip archive in EDM's form, WebDataset tars. Throws core::Error saying what was looked for.
EncodedImages images_at(const std::filesystem::path& path);

struct ImportSettings {
    int side = 64;
    int channels = 3;
    core::ResizeFilter filter = core::ResizeFilter::lanczos;
};

/// Writes `images` into a new zip archive in EDM's form (image_zip.h): PNGs of the centred square of each, scaled to `side` (core/resize.h), and their labels.
/// `done` hears how many are written. What an interrupted import left is gone on with. Throws core::Error when `to` exists or an image is broken,
/// and core::Interrupted when a stop is requested.
void import_images(const EncodedImages& images, const std::filesystem::path& to, const ImportSettings& settings,
                   const std::function<void(std::int64_t done)>& done);

}  // namespace atelier::data
