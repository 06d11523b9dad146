#pragma once

#include <filesystem>

#include "atelier/data/encoded_images.h"

namespace atelier::data {

/// Kind of the data at a path.
enum class DataFiles { nothing, images, idx, npz, points };

/// Detects it by file extension, in any case, and by the first bytes where the extension is
/// unknown. Throws core::Error for common files that are not data (a .tar.gz, a single image).
DataFiles detect_data_files(const std::filesystem::path& path);

/// Images with their labels or captions (arrange_images.h), not decoded: their sizes may differ.
/// "captions:PATH" requires captions. Throws core::Error saying what was looked for.
EncodedImages images_in(const DataRequest& request);

}  // namespace atelier::data
