#include "atelier/core/zip_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/mapped_file.h"
#include "atelier/core/output_path.h"

namespace atelier::core {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t header_size = 30;
constexpr std::uint64_t most_in_32_bits = 0xfffffffe, most_in_16_bits = 0xfffe;

std::string little(std::uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
    return text;
}

std::uint64_t number_at(std::span<const std::byte> bytes, std::size_t offset, int size) {
    std::uint64_t value = 0;
    for (int i = size; i-- > 0;)
        value = value << 8 |
                std::to_integer<std::uint64_t>(bytes[offset + static_cast<std::size_t>(i)]);
    return value;
}

std::uint32_t checksum_of(std::span<const std::byte> bytes) {
    return static_cast<std::uint32_t>(
        ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

/// The common part of local header and directory entry: version, flags (names are UTF-8), stored,
/// no date, checksum, sizes, length of the name.
std::string description(const std::string& name, std::uint32_t size, std::uint32_t checksum,
                        std::size_t extra) {
    return little(extra > 0 ? 45 : 20, 2) + little(0x0800, 2) + little(0, 2) + little(0, 2) +
           little(0x21, 2) + little(checksum, 4) + little(size, 4) + little(size, 4) +
           little(name.size(), 2) + little(extra, 2);
}

constexpr const char* purpose_ending = ".part.json";

fs::path purpose_of(const fs::path& path) { return path.string() + purpose_ending; }

[[noreturn]] void fail_writing(const fs::path& path) {
    fail("{}: cannot be written ({})", path.string(), std::strerror(errno));
}

}  // namespace

ZipWriter::ZipWriter(const fs::path& path, const std::string& purpose,
                     const ResumeCheck& resume_check)
    : path_(resolve_links(path)) {
    const fs::path part = part_of(path_), note = purpose_of(path_);
    if (path_.has_parent_path()) fs::create_directories(path_.parent_path());
    descriptor_ = ::open(part.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) fail_writing(part);
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0)
        fail("{}: another process is writing it", part.string());
    const std::string before = fs::exists(note) ? read_text(note) : "";
    if (resume_check && !before.empty()) read_existing_entries(resume_check(before));
    else if (before == purpose) read_existing_entries([](const std::string&) { return true; });
    // Truncate rejected entries before the note claims that the file has this purpose.
    if (before != purpose && ::ftruncate(descriptor_, static_cast<off_t>(end_)) != 0)
        fail_writing(part);
    if (before != purpose) write_text(note, purpose);
    if (::ftruncate(descriptor_, static_cast<off_t>(end_)) != 0 ||
        ::lseek(descriptor_, static_cast<off_t>(end_), SEEK_SET) < 0)
        fail_writing(part);
}

void ZipWriter::check_output(const fs::path& path) {
    check_output_file(path);
    if (is_stream(path))
        fail("{}: is a device or a pipe; an archive is written to a file", path.string());
    constexpr std::size_t longest = 255;
    const std::size_t size = purpose_of(resolve_links(path)).filename().string().size();
    if (size > longest)
        fail("{}: its name is too long by {} bytes: {} is added to it while it is written",
             path.string(), size - longest, purpose_ending);
}

ZipWriter::~ZipWriter() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void ZipWriter::read_existing_entries(const EntryCheck& is_current) {
    if (fs::file_size(part_of(path_)) == 0) return;
    const MappedFile file(part_of(path_));
    const std::span<const std::byte> bytes = file.bytes();
    while (bytes.size() - end_ >= header_size && number_at(bytes, end_, 4) == 0x04034b50) {
        const std::size_t name = number_at(bytes, end_ + 26, 2),
                          size = number_at(bytes, end_ + 22, 4), begin = end_ + header_size + name;
        if (begin > bytes.size() || size > bytes.size() - begin) break;
        const auto checksum = static_cast<std::uint32_t>(number_at(bytes, end_ + 14, 4));
        if (checksum_of(bytes.subspan(begin, size)) != checksum) break;
        std::string entry(reinterpret_cast<const char*>(bytes.data()) + end_ + header_size, name);
        if (!is_current(entry)) break;
        entries_.push_back({std::move(entry), static_cast<std::uint32_t>(size), checksum, end_});
        end_ = begin + size;
    }
}

void ZipWriter::write(const std::string& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t written = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
        if (written < 0 && errno != EINTR) fail_writing(part_of(path_));
        if (written > 0) done += static_cast<std::size_t>(written);
    }
}

void ZipWriter::add(const std::string& name, std::span<const std::byte> bytes) {
    if (bytes.size() > most_in_32_bits || name.size() > most_in_16_bits)
        fail("{}: \"{}\" is too large for an entry", path_.string(), name.substr(0, 100));
    const auto size = static_cast<std::uint32_t>(bytes.size());
    entries_.push_back({name, size, checksum_of(bytes), end_});
    std::string whole = "PK\3\4" + description(name, size, entries_.back().checksum, 0) + name;
    whole.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    write(whole);
    end_ += whole.size();
}

void ZipWriter::commit() {
    std::string directory;
    for (const Entry& entry : entries_) {
        const bool far = entry.offset > most_in_32_bits;
        const std::string extra = far ? little(1, 2) + little(8, 2) + little(entry.offset, 8) : "";
        directory += "PK\1\2" + little(45, 2) +
                     description(entry.name, entry.size, entry.checksum, extra.size()) +
                     little(0, 2) + little(0, 2) + little(0, 2) + little(0, 4) +
                     little(far ? 0xffffffff : entry.offset, 4) + entry.name + extra;
    }
    const std::uint64_t count = entries_.size(), begin = end_, size = directory.size();
    const bool large = count > most_in_16_bits || begin > most_in_32_bits || size > most_in_32_bits;
    if (large) {
        directory += "PK\6\6" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 4) +
                     little(0, 4) + little(count, 8) + little(count, 8) + little(size, 8) +
                     little(begin, 8);
        directory += "PK\6\7" + little(0, 4) + little(begin + size, 8) + little(1, 4);
    }
    const std::string counted = little(large ? 0xffff : count, 2);
    directory += "PK\5\6" + little(0, 4) + counted + counted +
                 little(large ? 0xffffffff : size, 4) + little(large ? 0xffffffff : begin, 4) +
                 little(0, 2);
    write(directory);
    AtomicFile::put_in_place(part_of(path_), descriptor_, path_);
    fs::remove(purpose_of(path_));
    ::close(std::exchange(descriptor_, -1));
}

}  // namespace atelier::core
