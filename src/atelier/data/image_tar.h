#pragma once

#include <filesystem>
#include <memory>

#include "atelier/data/file_listing.h"

namespace atelier::data {

/// The files of a tar, or of all `.tar` files of a folder sorted by name, in archive order. Of
/// several files of one name in a tar the last counts. Other files of the folder are passed over.
/// Throws core::Error naming the archive when it is broken or malicious.
std::shared_ptr<const FileListing> files_of_tars(const std::filesystem::path& path);

/// Whether a folder holds tars.
bool is_tar_folder(const std::filesystem::path& folder);

}  // namespace atelier::data
