#pragma once

#include <string>
#include <vector>

#include "atelier/core/mapped_file.h"

namespace atelier::core {

/// A tar archive, read in place: its headers are validated and listed, nothing is unpacked.
/// Supports ustar, GNU long names, and pax paths, links and sizes. A hard or symbolic link to a
/// file of the archive is that file under another name; entries that are neither files, links nor
/// folders are passed over.
class TarFile {
public:
    struct Entry {
        std::string name;
        std::span<const std::byte> bytes;  // in the archive
    };

    struct PassedOver {
        std::string name;
        enum class Why { dead_link, other } why;
    };

    /// Throws Error naming the file when it is not a tar archive, when an entry reaches beyond its
    /// end, or when a name leaves the archive (an absolute path, "..").
    explicit TarFile(std::filesystem::path path);

    const std::filesystem::path& path() const { return file_.path(); }
    const std::vector<Entry>& entries() const { return entries_; }
    /// Dangling links, devices, sparse files and other special entries.
    const std::vector<PassedOver>& passed_over() const { return passed_over_; }

private:
    MappedFile file_;
    std::vector<Entry> entries_;
    std::vector<PassedOver> passed_over_;
};

}  // namespace atelier::core
