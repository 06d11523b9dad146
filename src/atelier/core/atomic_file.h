#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace atelier::core {

/// A file that appears under its name whole or not at all: bytes go to a temporary file in the same folder, and `commit`
/// flushes it to disk, renames it and flushes the folder. Without `commit` nothing is left behind.
class AtomicFile {
public:
    /// Creates missing parent folders. Throws Error when the folder cannot be written.
    explicit AtomicFile(std::filesystem::path path);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(std::span<const std::byte> bytes);
    void write(std::string_view text);
    void commit();

    /// Where the bytes are until `commit`; for libraries that want to open a file by name.
    const std::filesystem::path& temporary_path() const { return temporary_; }

private:
    std::filesystem::path path_, temporary_;
    int descriptor_ = -1;
};

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
