#pragma once

#include <sys/stat.h>

#include <filesystem>

/// What lies where something is to be written; atomic_file.h is for others.
namespace atelier::core {

/// The number of an open file of this process that `path` names, as /dev/stdout and /dev/fd/3 do; else -1.
int own_descriptor(const std::filesystem::path& path);

/// Where a chain of symbolic links ends, be there something or not. Throws Error where it never ends.
std::filesystem::path behind_links(const std::filesystem::path& given);

/// Of what `path` leads to; a mode of 0 where there is nothing.
struct stat status_of(const std::filesystem::path& path);

/// Throws Error on a folder or a socket.
void refuse_what_holds_no_bytes(const std::filesystem::path& path, const struct stat& status);

/// Whether check_output_file was asked about this path.
bool is_named_output(const std::filesystem::path& target);

}  // namespace atelier::core
