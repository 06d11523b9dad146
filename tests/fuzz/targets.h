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
    /// Reads all of the file. core::Error is the correct result for a bad file.
    void (*read)(Bytes file);
    /// Size of the content that the file's header declares, in bytes, as far as the reader may rely
    /// on it.
    std::uint64_t (*claimed)(Bytes file);
};

std::span<const Target> targets();

/// Null when there is no such target.
const Target* find_target(std::string_view name);

/// Reads `file` with `target`. Aborts when anything but core::Error is thrown, or when the peak
/// memory exceeds ten times the file, what its header declares, and a constant for tables.
void try_file(const Target& target, Bytes file);

/// An unnamed file, for readers that take paths.
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

/// Tracks allocated bytes. Only one instance at a time.
class PeakMemory {
public:
    PeakMemory();
    /// Peak of allocated bytes since construction, minus those allocated at construction.
    std::uint64_t bytes() const;
};

}  // namespace atelier::fuzz
