#pragma once

#include <filesystem>
#include <memory>

#include "atelier/data/file_listing.h"

namespace atelier::data {

/// All files of a folder and its subfolders, also behind symbolic links, sorted by name. Throws
/// core::Error when folders are nested more than 64 deep.
std::shared_ptr<const FileListing> files_of_folder(const std::filesystem::path& folder);

}  // namespace atelier::data
