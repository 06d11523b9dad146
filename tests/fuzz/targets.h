#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace atelier::fuzz {

using Bytes = std::span<const std::uint8_t>;

/// A reader of files from outside, given one file's bytes.
struct Target {
    const char* name;
    /// Reads all of the file. core::Error is the right answer to a bad one.
    void (*read)(Bytes file);
    /// Bytes that the file's own header claims its content takes, where the reader may believe it.
    std::uint64_t (*claimed)(Bytes file);
};

std::span<const Target> targets();

/// Null when there is no such target.
const Target* find_target(std::string_view name);

/// Reads `file` by `target`. Aborts when anything but core::Error is thrown, and when more memory
/// was held at any time than ten times the file, what its header claims, and a constant for tables.
void try_file(const Target& target, Bytes file);

/// A file without a name, for readers that take paths.
class MemoryFile {
public:
    explicit MemoryFile(Bytes bytes);
    ~MemoryFile();
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    std::filesystem::path path() const;

private:
    int descriptor_;
};

/// Follows how many bytes are allocated. One at a time.
class PeakMemory {
public:
    PeakMemory();
    /// The most bytes that were held since construction, beyond what was held then.
    std::uint64_t bytes() const;
};

}  // namespace atelier::fuzz
