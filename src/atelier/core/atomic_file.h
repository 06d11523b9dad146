#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace atelier::core {

/// A file that appears under its name either complete or not at all: bytes go to a temporary file
/// in the same folder, and `commit` flushes it to disk, renames it and flushes the folder. Without
/// `commit` nothing is left behind. A symbolic link is followed: its target is replaced. Mode,
/// owner and access list of a replaced file are kept. Devices and pipes are written to directly.
/// Files that cannot be replaced (mount points, or files in a read-only folder) are overwritten.
class AtomicFile {
public:
    /// Creates missing parent folders. Waits until a pipe has a reader. Throws Error when the path
    /// cannot be written.
    explicit AtomicFile(std::filesystem::path path);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(std::span<const std::byte> bytes);
    void write(std::string_view text);
    void commit();

    /// Puts a file that is complete, and open for writing as `descriptor`, in the place of `path`,
    /// as commit() does with its temporary file. Throws Error, and leaves it where it is, when that
    /// fails. `path` must lie in the same folder.
    static void put_in_place(const std::filesystem::path& complete, int descriptor,
                             const std::filesystem::path& path);

private:
    enum class Mode { replace, overwrite, stream };

    AtomicFile() = default;
    void open_stream();
    void open_temporary();
    void keep_attributes() const;
    void begin_overwriting();
    void rename_into_place();
    void copy_over_target();

    std::filesystem::path path_, target_, temporary_;
    Mode mode_ = Mode::replace;
    bool begun_ = false;
    int descriptor_ = -1;
};

/// For a file that the user named: throws Error when it is already known that it cannot be written,
/// before hours of work are spent on it. Such a file keeps its other hard links when it is written;
/// files of our own (checkpoints) do not, so that a copy made of hard links stays unchanged.
void check_output_file(const std::filesystem::path& path);

/// The same for a folder that must not exist yet.
void check_output_folder(const std::filesystem::path& path);

/// Whether `path` names a device, a pipe or an open file of this process (/dev/stdout).
bool is_stream(const std::filesystem::path& path);

/// Writes a whole text file atomically.
void write_text(const std::filesystem::path& path, std::string_view text);

/// Reads a whole regular file. Throws Error when it is missing, not a regular file, or larger than
/// `largest` bytes.
std::string read_text(const std::filesystem::path& path,
                      std::size_t largest = std::size_t{1} << 30);

/// Fills a new directory under a temporary name next to `path`, then renames it to `path`. When
/// `fill` throws or the process dies, `path` does not exist. Throws Error if `path` already exists.
void create_directory_atomically(
    const std::filesystem::path& path,
    const std::function<void(const std::filesystem::path& temporary)>& fill);

/// Fills a temporary folder within `folder`, which is created where it is missing, then moves its
/// files into `folder`, replacing those of the same names: each appears complete or not at all. For
/// many files this is faster than writing them one by one, since they are flushed to disk together.
void add_files_atomically(const std::filesystem::path& folder,
                          const std::function<void(const std::filesystem::path& temporary)>& fill);

/// Who works in a directory.
struct LockHolder {
    std::string host;
    std::int64_t pid = 0;
};

/// The holder of a DirectoryLock; nothing where nobody holds it. On network mounts, where locks of
/// other machines may not be seen, the one that has not released it, which may have died.
std::optional<LockHolder> lock_holder(const std::filesystem::path& directory);

/// Holds an exclusive lock (`.lock`, with host and process id) on a directory, so that two
/// processes never train into the same one. Creates the directory. Throws Error naming the
/// directory and the other process when that holds the lock. The lock is released when the process
/// ends.
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
