#pragma once

#include <filesystem>

namespace atelier::core {

/// A file or folder under a temporary name next to its target. The name has random letters, and a
/// lock is held through `descriptor` for as long as the writer lives: process ids and clocks cannot
/// tell who is alive where containers and hosts share a volume.
struct Temporary {
    std::filesystem::path path;
    int descriptor = -1;  // -1: it could not be created, and errno says why
};

/// Names respect the length limit: a target name of 255 bytes has a temporary name of at most 255.
Temporary create_temporary_file(const std::filesystem::path& target);
Temporary create_temporary_folder(const std::filesystem::path& target);

/// Removes temporary files and folders of ours in `folder` whose writer was killed. Runs once per
/// process and folder.
void sweep_temporaries(const std::filesystem::path& folder);

/// Whether locks of other machines are always visible in this folder. Some network mounts keep
/// locks local.
bool locks_are_shared(const std::filesystem::path& folder);

/// The folder that holds `path`; "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace atelier::core
