#pragma once

#include <filesystem>
#include <memory>

#include "atelier/data/file_listing.h"

namespace atelier::data {

/// The files of a zip archive, in the order of their names. Of several of one name the last is
/// taken. Throws core::Error naming archive and entry when it is broken or hostile.
std::shared_ptr<const FileListing> files_of_zip(const std::filesystem::path& path);

}  // namespace atelier::data
