#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "atelier/core/mapped_file.h"

namespace atelier::core {

/// A zip archive, read in place: its directory is validated first, entries are found without
/// unpacking others. Supports stored and deflated entries, zip64, comments, and data before the
/// archive (a self-extractor); no encryption, no multi-part archives. Names are UTF-8, by flag or
/// by content, otherwise code page 437, the default of zip archives. Reading is thread-safe.
class ZipFile {
public:
    struct Entry {
        std::string name;
        std::uint64_t size = 0;    // unpacked
        std::uint64_t packed = 0;  // compressed size
        std::uint64_t header = 0;  // offset of its local header
        std::uint32_t checksum = 0;
        bool deflated = false;
    };

    /// Throws Error naming the file when it is not a zip archive, or when its directory is broken,
    /// has more than 100 million entries, or has a name outside the archive (an absolute path,
    /// "..").
    explicit ZipFile(std::filesystem::path path);

    const std::filesystem::path& path() const { return file_.path(); }
    /// In the order of the directory; folders are left out.
    const std::vector<Entry>& entries() const { return entries_; }
    /// How many names are neither UTF-8 nor marked as such, and were read as code page 437, and the
    /// first of them as it was read. A program that wrote them in another encoding did not say so.
    struct Guessed {
        std::size_t names = 0;
        std::string example;
    };
    const Guessed& guessed() const { return guessed_; }
    /// Null when there is no such entry.
    const Entry* find(const std::string& name) const;

    /// The bytes of a stored entry, as a view of the archive; throws Error when it is compressed.
    std::span<const std::byte> stored(const Entry& entry) const;
    /// The unpacked bytes. Throws Error naming file and entry when it is broken, fails its
    /// checksum, or is larger than `largest` or 2 GB.
    std::vector<std::byte> read(const Entry& entry, std::uint64_t largest) const;

private:
    std::span<const std::byte> packed(const Entry& entry) const;
    std::string where(const Entry& entry) const;

    MappedFile file_;
    std::vector<Entry> entries_;
    Guessed guessed_;
    std::vector<std::uint32_t> by_name_;  // indices into entries_, sorted by name
};

}  // namespace atelier::core
