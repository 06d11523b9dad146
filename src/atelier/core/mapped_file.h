#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace atelier::core {

/// A regular file mapped into memory for reading: its pages come and go as they are looked at. Throws Error naming the file when it cannot be read.
class MappedFile {
public:
    explicit MappedFile(std::filesystem::path path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::span<const std::byte> bytes() const { return bytes_; }

private:
    std::filesystem::path path_;
    std::span<const std::byte> bytes_;
};

}  // namespace atelier::core
