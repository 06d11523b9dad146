#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace atelier::core {

/// A regular file, open for reading. Throws Error for folders, pipes and devices (also behind a
/// symbolic link), so that a path from outside can neither block nor be read without end.
class RegularFile {
public:
    explicit RegularFile(std::filesystem::path path);
    ~RegularFile();
    RegularFile(const RegularFile&) = delete;
    RegularFile& operator=(const RegularFile&) = delete;

    int descriptor() const { return descriptor_; }
    std::uint64_t size() const { return size_; }

    /// Reads into `out` until it is full or the file ends; returns the number of bytes read. Throws
    /// Error when reading fails.
    std::size_t read(std::span<std::byte> out);

private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    std::uint64_t size_ = 0;
};

}  // namespace atelier::core
