#pragma once

#include <filesystem>
#include <memory>

#include "atelier/data/encoded_images.h"

namespace atelier::data {

/// Opens `folder`/<class>/*.png|jpg|jpeg: the sub-folders' names, sorted, are the classes, and samples come class by class in the
/// order of their file names. Images that lie directly in the folder are unlabelled. Where there are both `train` and `test`,
/// those are the splits, and the classes are train's. Hidden and other files are passed over. Grey images among coloured ones
/// become RGB. Throws core::Error when there are no images (saying what a data set may be), when a class has none, or when sizes
/// differ (naming the file).
std::shared_ptr<const Dataset> open_image_folder(const DataRequest& request);

/// The same images, not decoded: their sizes may differ.
EncodedImages images_in_folder(const DataRequest& request);

/// Whether a file's name ends as an image's that is read, .png, .jpg or .jpeg, in small or capital letters.
bool is_image_name(const std::string& name);

}  // namespace atelier::data
