#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace atelier::core {

/// A regular file, open for reading. Folders, pipes and devices are refused with an Error (also behind a symbolic link), so
/// that a path from outside can neither block nor read without end.
class RegularFile {
public:
    explicit RegularFile(std::filesystem::path path);
    ~RegularFile();
    RegularFile(const RegularFile&) = delete;
    RegularFile& operator=(const RegularFile&) = delete;

    int descriptor() const { return descriptor_; }
    std::uint64_t size() const { return size_; }

    /// Fills as much of `out` as the file still has and returns how many bytes that were. Throws Error when reading fails.
    std::size_t read(std::span<std::byte> out);

private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    std::uint64_t size_ = 0;
};

}  // namespace atelier::core
