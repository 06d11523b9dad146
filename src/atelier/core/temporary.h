#pragma once

#include <filesystem>

namespace atelier::core {

/// A file or folder under a temporary name beside its target. The name has random letters, and a lock is held through
/// `descriptor` for as long as the writer lives, so that neither process ids nor clocks say who is alive: containers and
/// hosts that share a volume share neither.
struct Temporary {
    std::filesystem::path path;
    int descriptor = -1;  // -1: it could not be created, and errno says why
};

/// The longest name is kept to: a target of 255 bytes has a temporary name of 255 at most.
Temporary create_temporary_file(const std::filesystem::path& target);
Temporary create_temporary_folder(const std::filesystem::path& target);

/// Removes temporary files and folders of ours in `folder` whose writer was killed. Looks once per process and folder.
void sweep_temporaries(const std::filesystem::path& folder);

/// The folder that holds `path`; "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace atelier::core
