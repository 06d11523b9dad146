#pragma once

#include "atelier/data/encoded_images.h"

namespace atelier::data {

/// Opens a data set as NVlabs/edm's dataset_tool writes it: a zip archive of PNG or JPEG images, and in its `dataset.json` their classes,
/// {"labels": [["00000/img00000000.png", 6], ...]}, and perhaps their names, "class_names" (ours); without labels, or
/// with null, it is unlabelled. Samples come in the order of their names. Throws
/// core::Error naming archive and entry: broken or hostile archives and images, images without a label, labels with gaps.
std::shared_ptr<const Dataset> open_image_zip(const DataRequest& request);

/// The same images, not decoded: their sizes may differ.
EncodedImages images_in_zip(const std::filesystem::path& path);

}  // namespace atelier::data
