#pragma once

#include <memory>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Whether a path names captioned images: "captions:PATH" for those of a folder or archive with
/// their captions (arrange_images.h), or, where PATH is a folder of Fashion-MNIST, for images that
/// the program composes of it itself; "captions:ATTRIBUTE:PATH" for the same with an attribute of
/// them as their classes (caption_grammar.h).
bool is_captioned(const std::filesystem::path& path);

/// Whether such a path's images are composed by the program, so that their captions follow its
/// grammar and its attributes can be measured. Other people's captions follow none.
bool is_composed(const std::filesystem::path& path);

/// 28x28 grey pictures of one or two garments, each with a caption of the grammar; the same on every machine. The test split shows the folder's test images in the
/// scenes that training never sees. Throws core::Error when the folder holds no 28x28 images in ten classes, core::UsageError when there is no such attribute.
std::shared_ptr<const Dataset> open_captioned(const DataRequest& request);

}  // namespace atelier::data
