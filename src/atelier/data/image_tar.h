#pragma once

#include "atelier/data/encoded_images.h"

namespace atelier::data {

/// Opens WebDataset tars: one, or all `.tar` files of a folder in the order of their names. Of the files of one sample, which share their name up to
/// the first dot, the image (.png, .jpg, .jpeg) and the class (.cls, a whole number) are read; samples come in the order in which they lie. Either
/// all samples have a class or none. Throws core::Error naming archive and entry: broken or hostile archives and images, labels with gaps.
std::shared_ptr<const Dataset> open_image_tars(const DataRequest& request);

/// The same images, not decoded: their sizes may differ.
EncodedImages images_in_tars(const std::filesystem::path& path);

/// Whether a folder holds tars.
bool is_tar_folder(const std::filesystem::path& folder);

}  // namespace atelier::data
