#pragma once

#include <string>
#include <vector>

#include "atelier/core/mapped_file.h"

namespace atelier::core {

/// A tar archive, read in place: its headers are checked and listed, nothing is unpacked. Knows ustar, GNU's long names and pax's paths; entries that
/// are no regular files (folders, links, devices) are passed over.
class TarFile {
public:
    struct Entry {
        std::string name;
        std::span<const std::byte> bytes;  // in the archive
    };

    /// Throws Error naming the file when it is no tar archive, when an entry reaches beyond its end, or when a name leaves the archive (an absolute
    /// path, "..").
    explicit TarFile(std::filesystem::path path);

    const std::filesystem::path& path() const { return file_.path(); }
    const std::vector<Entry>& entries() const { return entries_; }

private:
    MappedFile file_;
    std::vector<Entry> entries_;
};

}  // namespace atelier::core
