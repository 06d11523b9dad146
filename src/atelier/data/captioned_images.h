#pragma once

#include <memory>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Whether a path names captioned pictures that the program composes itself of a folder of Fashion-MNIST: "captions:FOLDER", or "captions:ATTRIBUTE:FOLDER"
/// for the same pictures with an attribute of them as their classes (caption_grammar.h).
bool is_captioned(const std::filesystem::path& path);

/// 28x28 grey pictures of one or two garments, each with a caption of the grammar; the same on every machine. The test split shows the folder's test images in the
/// scenes that training never sees. Throws core::Error when the folder holds no 28x28 images in ten classes, core::UsageError when there is no such attribute.
std::shared_ptr<const Dataset> open_captioned(const DataRequest& request);

}  // namespace atelier::data
