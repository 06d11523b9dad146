#pragma once

#include <memory>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Whether the images that lie directly in a folder have their captions beside them: NAME.txt for NAME.png.
bool is_captioned_folder(const std::filesystem::path& folder);

/// Those images, each labelled with its own caption. Throws core::Error naming an image without a caption, and a caption that is empty, longer than 64 KB or not UTF-8.
std::shared_ptr<const Dataset> open_captioned_folder(const DataRequest& request);

}  // namespace atelier::data
