#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace atelier::core {

/// A zip archive of stored entries that is written as `<path>.part` and put in the place of `path`
/// when it is complete, as an AtomicFile is: links are followed, mode and owner are kept. Work of
/// an earlier process is continued: its complete entries count, a broken one at the end is cut off.
/// Supports large archives (zip64) with entries of less than 4 GB.
class ZipWriter {
public:
    /// Whether an existing entry is what would be written now.
    using EntryCheck = std::function<bool(const std::string& entry)>;
    /// Returns that check for a part file whose purpose was `before`.
    using ResumeCheck = std::function<EntryCheck(const std::string& before)>;

    /// `purpose` describes what is being written. An existing part file is continued up to the
    /// first entry that `resume_check` rejects; without one, a part file of another purpose is
    /// started again. Throws Error when the file cannot be written.
    ZipWriter(const std::filesystem::path& path, const std::string& purpose,
              const ResumeCheck& resume_check = nullptr);
    ~ZipWriter();
    ZipWriter(const ZipWriter&) = delete;
    ZipWriter& operator=(const ZipWriter&) = delete;

    /// Names of the entries so far.
    std::size_t count() const { return entries_.size(); }
    const std::string& name(std::size_t i) const { return entries_[i].name; }

    /// Throws Error when it is known before the work that the archive cannot be written.
    static void check_output(const std::filesystem::path& path);

    void add(const std::string& name, std::span<const std::byte> bytes);
    /// Writes the directory, flushes, and puts the archive in its place.
    void commit();

    static std::filesystem::path part_of(const std::filesystem::path& path) {
        return path.string() + ".part";
    }

private:
    struct Entry {
        std::string name;
        std::uint32_t size, checksum;
        std::uint64_t offset;
    };
    void write(const std::string& bytes);
    void read_existing_entries(const EntryCheck& is_current);

    std::filesystem::path path_;
    int descriptor_ = -1;
    std::uint64_t end_ = 0;
    std::vector<Entry> entries_;
};

}  // namespace atelier::core
