#pragma once

#include <memory>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Whether a path names captioned images: "captions:PATH" for those of a folder or archive with
/// their captions (arrange_images.h), or, where PATH is a folder of Fashion-MNIST, for images that
/// the program composes from it; "captions:ATTRIBUTE:PATH" for the composed images with one of
/// their attributes as classes (caption_grammar.h).
bool is_captioned(const std::filesystem::path& path);

/// Whether the images of such a path are composed by the program, so that their captions follow its
/// grammar and its attributes can be measured.
bool is_composed(const std::filesystem::path& path);

/// 28x28 grey images of one or two garments, each with a caption of the grammar; the same on every
/// machine. The test split shows the folder's test images in scenes that training never shows.
/// Throws core::Error when the folder does not hold 28x28 images in ten classes, core::UsageError
/// when there is no such attribute.
std::shared_ptr<const Dataset> open_captioned(const DataRequest& request);

}  // namespace atelier::data
