#pragma once

#include <memory>

#include "atelier/data/encoded_images.h"
#include "atelier/data/file_listing.h"

namespace atelier::data {

/// Makes a data set of the files of a folder, a zip archive or tars, all by the same rules:
///
/// - Images are .png, .jpg (.jpeg, .jpe, .jfif) and .webp, at any depth. Folders that all images
/// lie in together count for nothing.
/// - `train` beside `test` (or `val`, `validation`, `valid`) are the splits; classes are train's.
/// - Classes are, in this order: those of a dataset.json (NVlabs/edm's form, names relative to its
/// folder), of .cls files (WebDataset), or the first folders' names.
/// - Captions are those of metadata.jsonl or metadata.csv (Hugging Face's imagefolder), or
/// NAME.txt, NAME.caption or NAME.json beside NAME.png. They are taken where the classes
///   would be folders' or none, and where `request.captions` wants them.
/// - What else there is, is counted.
///
/// Throws core::Error that names the file: nothing to read, some labels or captions missing, texts
/// that are not UTF-8.
EncodedImages arranged(std::shared_ptr<const FileListing> listing, const DataRequest& request);

}  // namespace atelier::data
