#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/data/passed_over.h"

namespace atelier::data {

/// The files of a folder, an archive or several, as they lie there, before anything is made of
/// them.
class FileListing {
public:
    struct File {
        std::string name;       // below the folder or in its archive: parts with '/' between, none
                                // empty, "." or ".."
        std::int64_t part = 0;  // which archive it lies in
    };
    enum class Kind { folder, zip, tars };
    using Use = std::function<void(std::span<const std::byte> bytes)>;
    using UseHead = std::function<void(std::span<const std::byte> bytes, std::uint64_t size)>;

    FileListing() = default;
    virtual ~FileListing() = default;
    FileListing(const FileListing&) = delete;
    FileListing& operator=(const FileListing&) = delete;

    virtual Kind kind() const = 0;
    /// In the order in which samples come.
    const std::vector<File>& files() const { return files_; }
    /// All folders, of a folder.
    const std::vector<std::string>& folders() const { return folders_; }
    /// What is no file.
    const PassedOver& passed_over() const { return passed_over_; }

    /// How large a text in it may be: what is packed may claim to be much longer than it is.
    virtual std::uint64_t largest_text() const = 0;

    /// The file in messages.
    virtual std::string where(std::size_t file) const = 0;
    /// Differs where contents do, as far as can be known without reading them; the same on every
    /// machine.
    virtual std::string identity(std::size_t file) const = 0;
    /// The same, more strictly: also when the file was written.
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

/// A name's parts that say something, with '/' between. Archives made by some programs on Windows
/// have '\' there.
std::string plain_name(std::string_view name);

/// The last part of a name, what comes before that ("" or ends with '/'), and the ending with its
/// dot, in small letters.
std::string_view last_part(std::string_view name);
std::string_view folder_part(std::string_view name);
std::string ending_of(std::string_view name);

}  // namespace atelier::data
