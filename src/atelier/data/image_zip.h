#pragma once

#include <filesystem>
#include <memory>

#include "atelier/data/file_listing.h"

namespace atelier::data {

/// The files of a zip archive, sorted by name. Of several files of one name the last counts. Throws
/// core::Error naming archive and entry when it is broken or malicious.
std::shared_ptr<const FileListing> files_of_zip(const std::filesystem::path& path);

}  // namespace atelier::data
