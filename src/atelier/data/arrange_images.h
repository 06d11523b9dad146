#pragma once

#include <memory>

#include "atelier/data/encoded_images.h"
#include "atelier/data/file_listing.h"

namespace atelier::data {

/// Builds a data set from the files of a folder, a zip archive or tars, all by the same rules:
///
/// - Images are .png, .jpg (.jpeg, .jpe, .jfif) and .webp, at any depth. Folders that contain all
///   images are ignored.
/// - `train` next to `test` (or `val`, `validation`, `valid`) are the splits; classes are train's.
/// - Classes are, in this order: those of a dataset.json (NVlabs/edm's format, names relative to
///   its folder), of .cls files (WebDataset), or the names of the top folders.
/// - Captions are those of metadata.jsonl or metadata.csv (Hugging Face's imagefolder), or of
///   NAME.txt, NAME.caption or NAME.json next to NAME.png. They are used where the classes would be
///   folders' or none, and where `request.captions` requires them.
/// - Everything else is counted in `passed_over`.
///
/// Throws core::Error that names the file when there is nothing to read, some labels or captions
/// are missing, or a text is not UTF-8.
EncodedImages arrange_images(std::shared_ptr<const FileListing> listing,
                             const DataRequest& request);

}  // namespace atelier::data
