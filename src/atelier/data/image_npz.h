#pragma once

#include <filesystem>

#include "atelier/data/memory_dataset.h"

namespace atelier::data {

/// Reads a .npz of images as `atelier sample` and guided-diffusion's tools write them: `arr_0`
/// uint8 [N,H,W,C] with 1 or 3 channels, and classes in `labels` or `arr_1` int64 [N], which may be
/// absent, and have no gaps unless the request accepts those. Throws core::Error naming the file.
StoredImages read_image_npz(const DataRequest& request);

/// Whether `arr_0` of a .npz is of images, by its header. Throws core::Error when the file cannot
/// be read.
bool is_image_npz(const std::filesystem::path& path);

}  // namespace atelier::data
