#pragma once

#include <filesystem>

#include "atelier/data/encoded_images.h"

namespace atelier::data {

/// What lies at a path.
enum class DataFiles { nothing, images, idx, npz, points };

/// By the endings of files, in small or capital letters, and by how they begin where those say
/// nothing. Throws core::Error where it can be said why nothing can be made of them (a .tar.gz, a
/// single image).
DataFiles look_at(const std::filesystem::path& path);

/// Images with their labels or captions (arrange_images.h), not decoded: their sizes may differ.
/// "captions:PATH" wants captions. Throws core::Error saying what was looked for.
EncodedImages images_in(const DataRequest& request);

}  // namespace atelier::data
