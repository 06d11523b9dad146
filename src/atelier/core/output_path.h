#pragma once

#include <sys/stat.h>

#include <filesystem>

/// The state of an output path; used by atomic_file.h only.
namespace atelier::core {

/// The descriptor of an open file of this process that `path` names, as /dev/stdout and /dev/fd/3
/// do; -1 otherwise.
int own_descriptor(const std::filesystem::path& path);

/// The end of a chain of symbolic links, whether it exists or not. Throws Error when the links form
/// a loop.
std::filesystem::path resolve_links(const std::filesystem::path& given);

/// `stat` of what `path` leads to; st_mode is 0 where there is nothing.
struct stat status_of(const std::filesystem::path& path);

/// Throws Error on a folder or a socket.
void reject_folders_and_sockets(const std::filesystem::path& path, const struct stat& status);

/// Whether check_output_file was called for this path.
bool is_named_output(const std::filesystem::path& target);

}  // namespace atelier::core
