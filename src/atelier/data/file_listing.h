#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/data/passed_over.h"

namespace atelier::data {

/// The files of a folder or of one or more archives, before they are interpreted.
class FileListing {
public:
    struct File {
        std::string name;          // relative to the folder or archive, with '/' between its parts,
                                   // none of which is empty, "." or ".."
        std::int64_t archive = 0;  // index of its archive
    };
    enum class Kind { folder, zip, tars };
    using Use = std::function<void(std::span<const std::byte> bytes)>;
    using UseHead = std::function<void(std::span<const std::byte> bytes, std::uint64_t size)>;

    FileListing() = default;
    virtual ~FileListing() = default;
    FileListing(const FileListing&) = delete;
    FileListing& operator=(const FileListing&) = delete;

    virtual Kind kind() const = 0;
    /// In the order of the samples.
    const std::vector<File>& files() const { return files_; }
    /// All subfolders, if this is a folder.
    const std::vector<std::string>& folders() const { return folders_; }
    /// Entries that are not files.
    const PassedOver& passed_over() const { return passed_over_; }

    /// Largest text file that may be read, in bytes: a packed file may claim to be much larger than
    /// it is.
    virtual std::uint64_t largest_text() const = 0;

    /// Name of a file for messages.
    virtual std::string where(std::size_t file) const = 0;
    /// Differs where contents do, as far as can be known without reading them; the same on every
    /// machine.
    virtual std::string identity(std::size_t file) const = 0;
    /// Like `identity`, but also differs when the file was written again.
    virtual std::string version(std::size_t file) const = 0;
    /// Calls `use` with a file's bytes. Thread-safe. Throws core::Error naming the file when it
    /// cannot be read or is larger than `largest`.
    virtual void with_bytes(std::size_t file, std::uint64_t largest, const Use& use) const = 0;
    /// Calls `use` with a file's first bytes, 64 KB or all of it. Thread-safe; throws core::Error.
    virtual void with_head(std::size_t file, const UseHead& use) const = 0;

protected:
    std::vector<File> files_;
    std::vector<std::string> folders_;
    PassedOver passed_over_;
};

/// A name without empty and "." parts, with '/' between parts. Archives made by some programs on
/// Windows have '\' there.
std::string plain_name(std::string_view name);

/// The last part of a name, its folder ("" or ends with '/'), and its extension with the dot, in
/// lower case.
std::string_view last_part(std::string_view name);
std::string_view folder_part(std::string_view name);
std::string ending_of(std::string_view name);

}  // namespace atelier::data
