#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace atelier::core {

/// A file that appears under its name whole or not at all: bytes go to a temporary file in the same folder, and `commit`
/// flushes it to disk, renames it and flushes the folder. Without `commit` nothing is left behind. A symbolic link is written
/// through: what it leads to is replaced. Mode, owner and access list of a file that is replaced are kept. Devices and pipes are
/// written into. Files that cannot be replaced (mounted by themselves, or in a folder that is not writable) are overwritten.
class AtomicFile {
public:
    /// Creates missing parent folders. Waits for the reader of a pipe. Throws Error when nothing can be written there.
    explicit AtomicFile(std::filesystem::path path);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(std::span<const std::byte> bytes);
    void write(std::string_view text);
    void commit();

private:
    enum class Way { replace, overwrite, stream };

    AtomicFile() = default;
    void open_stream();
    void open_temporary();
    void keep_attributes() const;
    void begin_overwriting();
    void put_in_place();
    void copy_over_target();

    std::filesystem::path path_, target_, temporary_;
    Way way_ = Way::replace;
    bool begun_ = false;
    int descriptor_ = -1;
};

/// For a file that the user named: throws Error when it is known already that nothing can be written there, before hours of
/// work end at it. Such a file keeps its other hard links when it is written; files of our own (checkpoints) do not, so that
/// a copy made of links stays what it was.
void check_output_file(const std::filesystem::path& path);

/// The same for a folder that must not exist yet.
void check_output_folder(const std::filesystem::path& path);

/// Whether `path` names a device, a pipe or an open file of this process (/dev/stdout).
bool is_stream(const std::filesystem::path& path);

/// Writes a whole text file atomically.
void write_text(const std::filesystem::path& path, std::string_view text);

/// Reads a whole regular file. Throws Error when it is missing, not a regular file, or larger than `largest` bytes.
std::string read_text(const std::filesystem::path& path, std::size_t largest = std::size_t{1} << 30);

/// Fills a new directory under a temporary name beside `path`, then renames it to `path`. When `fill` throws, or the process
/// dies, `path` does not exist. Throws Error if `path` exists.
void create_directory_atomically(const std::filesystem::path& path,
                                 const std::function<void(const std::filesystem::path& temporary)>& fill);

/// Holds an exclusive lock (`.lock`) on a directory, so that two processes never train into the same one. Creates the
/// directory. Throws Error naming the directory when another process holds it. The lock dies with the process.
class DirectoryLock {
public:
    explicit DirectoryLock(const std::filesystem::path& directory);
    ~DirectoryLock();
    DirectoryLock(const DirectoryLock&) = delete;
    DirectoryLock& operator=(const DirectoryLock&) = delete;

private:
    int descriptor_ = -1;
};

}  // namespace atelier::core
