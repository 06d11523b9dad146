#pragma once

#include "atelier/data/dataset.h"

namespace atelier::data {

/// Whether a path is "captions:PATH": the images of a folder or an archive with their captions
/// (arrange_images.h), even where PATH also has classes.
bool is_captioned(const std::filesystem::path& path);

/// What such a path asks for: PATH, with captions required. Throws core::UsageError where it asks
/// for what earlier versions composed, "captions:FOLDER" and "captions:ATTRIBUTE:FOLDER" of
/// Fashion-MNIST; the message says how to make it.
DataRequest captions_request(const DataRequest& request);

}  // namespace atelier::data
