#include "atelier/core/zip_file.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "atelier/core/error.h"
#include "atelier/core/text_encoding.h"

namespace atelier::core {

namespace {

using Bytes = std::span<const std::byte>;

constexpr std::uint32_t end_magic = 0x06054b50, end64_magic = 0x06064b50,
                        locator_magic = 0x07064b50, entry_magic = 0x02014b50;
constexpr std::uint32_t local_magic = 0x04034b50;
constexpr std::uint16_t unicode_name = 0x7075;  // an extra field
constexpr std::size_t end_size = 22, end64_size = 56, locator_size = 20, entry_size = 46,
                      local_size = 30, longest_comment = 65535;
constexpr std::uint32_t zip64_marker = 0xffffffff;  // the value is in the zip64 record
constexpr std::uint64_t most_entries = 100'000'000;
constexpr std::uint64_t largest_read = 0x7fffffff;  // zlib has 32-bit counters
constexpr std::uint16_t utf8_names = 0x0800;
constexpr std::uint64_t max_deflate_ratio = 1032;  // deflate compresses no better

/// A little-endian integer; the caller must check that it is within `bytes`.
template <class Number>
Number number_at(Bytes bytes, std::size_t position) {
    Number value;
    std::memcpy(&value, bytes.data() + position, sizeof value);
    return value;
}

struct Directory {
    std::uint64_t count, size, offset;
    std::uint64_t end;         // offset of the record after it
    std::uint64_t before = 0;  // bytes before the archive, not included in its offsets
};

class DirectoryReader {
public:
    DirectoryReader(Bytes file, std::string where) : file_(file), where_(std::move(where)) {}

    std::vector<ZipFile::Entry> entries(ZipFile::Guessed& guessed) const {
        const Directory directory = find();
        if (directory.count > most_entries || directory.count * entry_size > directory.size)
            broken("its directory is too short for its entries");
        Bytes rest = file_.subspan(static_cast<std::size_t>(directory.before + directory.offset),
                                   static_cast<std::size_t>(directory.size));
        std::vector<ZipFile::Entry> entries;
        for (std::uint64_t i = 0; i < directory.count; ++i) {
            bool is_guessed = false;
            ZipFile::Entry entry = next(rest, is_guessed);
            entry.header += directory.before;
            if (entry.name.ends_with('/')) continue;
            if (is_guessed && guessed.names++ == 0) guessed.example = entry.name;
            entries.push_back(std::move(entry));
        }
        return entries;
    }

private:
    [[noreturn]] void broken(const std::string& what) const {
        fail("{}: is a broken zip archive: {}", where_, what);
    }

    /// The last end record whose comment ends with the file and whose directory exists: a comment
    /// may contain anything, even the end of another archive.
    Directory find() const {
        bool looks_like_one = false;
        const std::size_t last = file_.size() < end_size ? 0 : file_.size() - end_size + 1,
                          first = last > longest_comment + 1 ? last - longest_comment - 1 : 0;
        for (std::size_t position = last; position-- > first;) {
            if (number_at<std::uint32_t>(file_, position) != end_magic) continue;
            looks_like_one = true;
            if (number_at<std::uint16_t>(file_, position + 20) > file_.size() - position - end_size)
                continue;
            if (const auto directory = directory_before(position)) return *directory;
        }
        if (looks_like_one) broken("its directory lies beyond its end, or is cut off");
        fail("{}: is not a zip archive, or was cut off", where_);
    }

    std::optional<Directory> directory_before(std::size_t end) const {
        const Directory here{number_at<std::uint16_t>(file_, end + 10),
                             number_at<std::uint32_t>(file_, end + 12),
                             number_at<std::uint32_t>(file_, end + 16), end};
        const bool large =
            here.count == 0xffff || here.size == zip64_marker || here.offset == zip64_marker;
        return placed(large && end >= locator_size ? find_large(end - locator_size).value_or(here)
                                                   : here);
    }

    /// Locates a directory: at its stated offset, or shifted by the bytes that precede the archive.
    /// Nothing if it is at neither.
    std::optional<Directory> placed(Directory directory) const {
        if (directory.offset > directory.end || directory.size > directory.end - directory.offset)
            return std::nullopt;
        if (begins_entry(directory.offset, directory.count)) return directory;
        directory.before = directory.end - directory.size - directory.offset;
        if (begins_entry(directory.before + directory.offset, directory.count)) return directory;
        return std::nullopt;
    }

    bool begins_entry(std::uint64_t position, std::uint64_t count) const {
        if (count == 0) return true;
        return file_.size() >= entry_size && position <= file_.size() - entry_size &&
               number_at<std::uint32_t>(file_, static_cast<std::size_t>(position)) == entry_magic;
    }

    std::optional<Directory> find_large(std::size_t locator) const {
        if (number_at<std::uint32_t>(file_, locator) != locator_magic) return std::nullopt;
        std::size_t at =
            locator >= end64_size
                ? locator - end64_size
                : 0;  // its offset without further fields, whatever precedes the archive
        const auto position = number_at<std::uint64_t>(file_, locator + 8);
        if (position <= locator && locator - position >= end64_size &&
            number_at<std::uint32_t>(file_, static_cast<std::size_t>(position)) == end64_magic)
            at = static_cast<std::size_t>(position);
        if (locator < end64_size || number_at<std::uint32_t>(file_, at) != end64_magic)
            broken("its zip64 record is missing");
        return Directory{number_at<std::uint64_t>(file_, at + 32),
                         number_at<std::uint64_t>(file_, at + 40),
                         number_at<std::uint64_t>(file_, at + 48), at};
    }

    /// The entry with which `rest` begins; `guessed` where its name does not say its encoding.
    ZipFile::Entry next(Bytes& rest, bool& guessed) const {
        if (rest.size() < entry_size || number_at<std::uint32_t>(rest, 0) != entry_magic)
            broken("its directory ends too early");
        const std::size_t name = number_at<std::uint16_t>(rest, 28),
                          extra = number_at<std::uint16_t>(rest, 30),
                          comment = number_at<std::uint16_t>(rest, 32);
        if (rest.size() - entry_size < name + extra + comment)
            broken("its directory ends too early");
        ZipFile::Entry entry{
            .name = std::string(reinterpret_cast<const char*>(rest.data()) + entry_size, name),
            .size = number_at<std::uint32_t>(rest, 24),
            .packed = number_at<std::uint32_t>(rest, 20),
            .header = number_at<std::uint32_t>(rest, 42),
            .checksum = number_at<std::uint32_t>(rest, 16)};
        const auto flags = number_at<std::uint16_t>(rest, 8);
        const bool named_again = read_extra(entry, rest.subspan(entry_size + name, extra));
        if (!named_again && first_bad_byte(entry.name)) {
            guessed = (flags & utf8_names) == 0;
            entry.name = guessed ? from_cp437(entry.name) : from_latin1(entry.name);
        }
        check(entry, flags, number_at<std::uint16_t>(rest, 10));
        rest = rest.subspan(entry_size + name + extra + comment);
        return entry;
    }

    /// Values that need 64 bits are in an extra field, in this order; another may have a UTF-8
    /// name. Returns whether there was such a name.
    bool read_extra(ZipFile::Entry& entry, Bytes extra) const {
        bool named = false;
        while (extra.size() >= 4) {
            const auto id = number_at<std::uint16_t>(extra, 0);
            const std::size_t length = number_at<std::uint16_t>(extra, 2);
            if (length > extra.size() - 4) break;  // padding that some programs leave there
            const Bytes field = extra.subspan(4, length);
            extra = extra.subspan(4 + length);
            if (id == 1) enlarge(entry, field);
            if (id == unicode_name) named |= rename(entry, field);
        }
        return named;
    }

    void enlarge(ZipFile::Entry& entry, Bytes field) const {
        for (std::uint64_t* number : {&entry.size, &entry.packed, &entry.header}) {
            if (*number != zip64_marker) continue;
            if (field.size() < 8)
                broken(
                    fmt::format("the zip64 field of \"{}\" is too short", printable(entry.name)));
            *number = number_at<std::uint64_t>(field, 0);
            field = field.subspan(8);
        }
    }

    /// Info-ZIP Unicode path field: a version, the checksum of the name that it replaces, and the
    /// name.
    static bool rename(ZipFile::Entry& entry, Bytes field) {
        if (field.size() <= 5 || number_at<std::uint8_t>(field, 0) != 1) return false;
        if (number_at<std::uint32_t>(field, 1) !=
            ::crc32_z(0, reinterpret_cast<const Bytef*>(entry.name.data()), entry.name.size()))
            return false;
        const std::string_view name(reinterpret_cast<const char*>(field.data()) + 5,
                                    field.size() - 5);
        if (first_bad_byte(name)) return false;
        entry.name = name;
        return true;
    }

    void check(ZipFile::Entry& entry, std::uint16_t flags, std::uint16_t method) const {
        const std::filesystem::path path(entry.name);
        const bool leaves = path.is_absolute() || std::ranges::find(path, "..") != path.end();
        if (leaves || entry.name.find('\0') != entry.name.npos)
            fail("{}: the entry \"{}\" would lie outside of the archive", where_,
                 printable(entry.name));
        if ((flags & 1) != 0)
            fail("{}: the entry \"{}\" is encrypted; unpack the archive and give the folder",
                 where_, printable(entry.name));
        if (method != 0 && method != Z_DEFLATED)
            fail(
                "{}: the entry \"{}\" is packed by method {}; known are stored and deflated, so "
                "unpack the archive and give the folder",
                where_, printable(entry.name), method);
        entry.deflated = method == Z_DEFLATED;
        if (entry.packed > file_.size() ||
            (entry.deflated ? entry.size / max_deflate_ratio > entry.packed
                            : entry.size != entry.packed)) {
            fail("{}: the entry \"{}\" claims {} bytes unpacked from {}, which is impossible",
                 where_, printable(entry.name), entry.size, entry.packed);
        }
    }

    Bytes file_;
    std::string where_;
};

}  // namespace

ZipFile::ZipFile(std::filesystem::path path) : file_(std::move(path)) {
    entries_ = DirectoryReader(file_.bytes(), file_.path().string()).entries(guessed_);
    by_name_.resize(entries_.size());
    std::iota(by_name_.begin(), by_name_.end(), 0);
    std::ranges::stable_sort(
        by_name_, {}, [this](std::uint32_t i) -> const std::string& { return entries_[i].name; });
}

const ZipFile::Entry* ZipFile::find(const std::string& name) const {
    const auto found = std::ranges::lower_bound(
        by_name_, name, {},
        [this](std::uint32_t i) -> const std::string& { return entries_[i].name; });
    return found != by_name_.end() && entries_[*found].name == name ? &entries_[*found] : nullptr;
}

std::string ZipFile::where(const Entry& entry) const {
    return fmt::format("{}: \"{}\"", path().string(), printable(entry.name.substr(0, 200)));
}

std::span<const std::byte> ZipFile::packed(const Entry& entry) const {
    const Bytes file = file_.bytes();
    if (file.size() < local_size || entry.header > file.size() - local_size)
        fail("{}: lies beyond the archive's end", where(entry));
    const auto header = static_cast<std::size_t>(entry.header);
    if (number_at<std::uint32_t>(file, header) != local_magic)
        fail("{}: is not where the directory says", where(entry));
    const std::size_t start = header + local_size + number_at<std::uint16_t>(file, header + 26) +
                              number_at<std::uint16_t>(file, header + 28);
    if (start > file.size() || entry.packed > file.size() - start)
        fail("{}: reaches beyond the archive's end", where(entry));
    return file.subspan(start, static_cast<std::size_t>(entry.packed));
}

std::span<const std::byte> ZipFile::stored(const Entry& entry) const {
    if (entry.deflated) fail("{}: is compressed; it must be stored", where(entry));
    return packed(entry);
}

std::vector<std::byte> ZipFile::read(const Entry& entry, std::uint64_t largest) const {
    if (entry.size > std::min(largest, largest_read)) {
        fail("{}: is {} bytes unpacked, more than the {} that may be read", where(entry),
             entry.size, std::min(largest, largest_read));
    }
    const Bytes from = packed(entry);
    std::vector<std::byte> bytes(static_cast<std::size_t>(entry.size));
    if (entry.deflated) {
        z_stream stream{};
        if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
            fail("{}: cannot be unpacked (out of memory)", where(entry));
        stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(from.data()));
        stream.avail_in = static_cast<uInt>(from.size());
        stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
        stream.avail_out = static_cast<uInt>(bytes.size());
        const int status = inflate(&stream, Z_FINISH);
        const bool whole = status == Z_STREAM_END && stream.avail_out == 0;
        inflateEnd(&stream);
        if (!whole)
            fail("{}: is broken: it does not unpack to the {} bytes that it claims", where(entry),
                 entry.size);
    } else {
        std::ranges::copy(from, bytes.begin());
    }
    const auto checksum = ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
    if (checksum != entry.checksum)
        fail("{}: is broken: its checksum does not match", where(entry));
    return bytes;
}

}  // namespace atelier::core
