#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <utility>

namespace atelier::core {

/// A regular file mapped into memory for reading; its pages are loaded on access. Throws Error
/// naming the file when it cannot be read.
class MappedFile {
public:
    explicit MappedFile(std::filesystem::path path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept
        : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}
    MappedFile& operator=(MappedFile&&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::span<const std::byte> bytes() const { return bytes_; }

    /// Returns the resident pages to the system; a later access reads them from the file again.
    void release_pages() const;

private:
    std::filesystem::path path_;
    std::span<const std::byte> bytes_;
};

}  // namespace atelier::core
