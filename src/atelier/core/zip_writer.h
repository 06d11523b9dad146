#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace atelier::core {

/// A zip archive of stored entries that grows beside its name, as `<path>.part`, and appears under it when it is whole. What an earlier process left is gone on
/// with: its whole entries count, a broken one at the end is cut off. Large archives (zip64) are written, entries of less than 4 GB.
class ZipWriter {
public:
    /// Whether an entry of a part is as it would be written now.
    using StillGood = std::function<bool(const std::string& entry)>;
    /// What says so of a part that was begun for the purpose `before`.
    using Judge = std::function<StillGood(const std::string& before)>;

    /// `purpose` says what is being written. A part is gone on with up to its first entry that
    /// `judge` does not know as still good; without a judge, a part of another purpose is begun
    /// again. Throws Error when the file cannot be written.
    ZipWriter(std::filesystem::path path, const std::string& purpose, const Judge& judge = nullptr);
    ~ZipWriter();
    ZipWriter(const ZipWriter&) = delete;
    ZipWriter& operator=(const ZipWriter&) = delete;

    /// Names of the entries so far.
    std::size_t count() const { return entries_.size(); }
    const std::string& name(std::size_t i) const { return entries_[i].name; }

    void add(const std::string& name, std::span<const std::byte> bytes);
    /// Writes the directory, flushes, and puts the archive in place.
    void commit();

    static std::filesystem::path part_of(const std::filesystem::path& path) { return path.string() + ".part"; }

private:
    struct Entry {
        std::string name;
        std::uint32_t size, checksum;
        std::uint64_t place;
    };
    void write(const std::string& bytes);
    void read_what_is_there(const StillGood& still_good);

    std::filesystem::path path_;
    int descriptor_ = -1;
    std::uint64_t end_ = 0;
    std::vector<Entry> entries_;
};

}  // namespace atelier::core
