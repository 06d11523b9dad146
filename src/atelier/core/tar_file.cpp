#include "atelier/core/tar_file.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <unordered_map>
#include <utility>

#include "atelier/core/compression.h"
#include "atelier/core/error.h"
#include "atelier/core/text_encoding.h"

namespace atelier::core {

namespace {

constexpr std::size_t block = 512;
constexpr std::size_t longest_name = 4096;

struct TarHeader {
    std::string name;
    enum class Kind { file, hard_link, symbolic_link, other } kind = Kind::file;
    std::string target;  // of a link, as a name in the archive
    std::string_view body;
};

/// Reads the headers of an archive one after another.
class HeaderReader {
public:
    HeaderReader(std::span<const std::byte> file, const std::string& where)
        : rest_(reinterpret_cast<const char*>(file.data()), file.size()), where_(where) {}

    /// The next entry that is not a folder, or nothing at the end.
    std::optional<TarHeader> next() {
        Overrides overrides;
        while (rest_.size() >= block &&
               rest_.substr(0, block).find_first_not_of('\0') != rest_.npos) {
            const std::string_view header = take(block);
            check_sum(header);
            const char type = header[156];
            const bool describes_next = type == 'L' || type == 'K' || type == 'x' || type == 'g';
            const std::uint64_t own_size = number(header.substr(124, 12), "size");
            const bool has_body = type != '1' && type != '2' && type != '3' && type != '4' &&
                                  type != '5' && type != '6';
            const std::string_view body =
                has_body ? take_body(describes_next ? own_size : overrides.size.value_or(own_size))
                         : std::string_view();
            if (describes_next) {
                read_overrides(type, body, overrides);
                continue;
            }
            TarHeader entry{overrides.name.value_or(own_name(header)), kind_of(type),
                            overrides.link.value_or(std::string(text(header.substr(157, 100)))),
                            body};
            overrides = {};
            if (type == '5' || type == 'V' || entry.name.ends_with('/'))
                continue;  // folders and the volume label
            entry.name = checked(std::move(entry.name));
            return entry;
        }
        return std::nullopt;
    }

private:
    [[noreturn]] void broken(const std::string& what) const {
        fail("{}: is not a tar archive, or a broken one: {}", where_, what);
    }

    /// Values of preceding entries that override the next header.
    struct Overrides {
        std::optional<std::string> name, link;
        std::optional<std::uint64_t> size;
    };

    static TarHeader::Kind kind_of(char type) {
        using enum TarHeader::Kind;
        if (type == '0' || type == '\0' || type == '7') return file;
        return type == '1' ? hard_link : type == '2' ? symbolic_link : other;
    }

    void read_overrides(char type, std::string_view body, Overrides& overrides) const {
        if (type == 'L') overrides.name = limited(text(body));
        if (type == 'K') overrides.link = limited(text(body));
        if (type != 'x') return;  // nothing in a global header is needed
        if (const auto path = pax_value(body, "path=")) overrides.name = limited(*path);
        if (const auto path = pax_value(body, "linkpath=")) overrides.link = limited(*path);
        if (const auto digits = pax_value(body, "size=")) {
            std::uint64_t size = 0;
            if (std::from_chars(digits->data(), digits->data() + digits->size(), size).ec !=
                std::errc{})
                broken("the size of an entry is not a number");
            overrides.size = size;
        }
    }

    std::string_view take(std::uint64_t count) {
        if (count > rest_.size()) broken("it ends within an entry; was it cut off?");
        const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(count));
        rest_.remove_prefix(taken.size());
        return taken;
    }

    std::string_view take_body(std::uint64_t size) {
        const std::string_view body = take(size);
        take(std::min<std::uint64_t>((block - size % block) % block, rest_.size()));
        return body;
    }

    static std::string_view text(std::string_view field) {
        return field.substr(0, field.find('\0'));
    }

    /// Octal digits, or a big-endian binary number if the highest bit is set.
    std::uint64_t number(std::string_view field, const char* what) const {
        std::uint64_t value = 0;
        if ((field[0] & 0x80) != 0) {
            for (const char byte : field.substr(field.size() - 8))
                value = value << 8 | static_cast<unsigned char>(byte);
            return value;
        }
        field = text(field);
        field = field.substr(std::min(field.find_first_not_of(' '), field.size()));
        const auto [end, problem] =
            std::from_chars(field.data(), field.data() + field.size(), value, 8);
        if (problem != std::errc{}) broken(fmt::format("the {} of an entry is not a number", what));
        return value;
    }

    void check_sum(std::string_view header) const {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < block; ++i)
            sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(header[i]);
        if (sum != number(header.substr(148, 8), "checksum"))
            broken("the checksum of a header does not match");
    }

    static std::string own_name(std::string_view header) {
        const std::string_view prefix =
            header.substr(257, 5) == "ustar" ? text(header.substr(345, 155)) : "";
        const std::string_view name = text(header.substr(0, 100));
        return prefix.empty() ? std::string(name) : std::string(prefix) + "/" + std::string(name);
    }

    /// Records are "length key=value\n".
    static std::optional<std::string_view> pax_value(std::string_view records,
                                                     std::string_view key) {
        while (!records.empty()) {
            std::size_t length = 0;
            const auto [end, problem] =
                std::from_chars(records.data(), records.data() + records.size(), length);
            if (problem != std::errc{} || length == 0 || length > records.size())
                return std::nullopt;
            const std::string_view record = records.substr(0, length),
                                   pair = record.substr(record.find(' ') + 1);
            if (pair.starts_with(key) && pair.size() > key.size() && pair.ends_with('\n'))
                return pair.substr(key.size(), pair.size() - key.size() - 1);
            records.remove_prefix(length);
        }
        return std::nullopt;
    }

    std::string limited(std::string_view name) const {
        if (name.size() > longest_name) broken(fmt::format("a name has {} letters", name.size()));
        return std::string(name);
    }

    std::string checked(std::string name) const {
        const std::filesystem::path path(name);
        if (path.is_absolute() || std::ranges::find(path, "..") != path.end())
            fail("{}: the entry \"{}\" would lie outside of the archive", where_, printable(name));
        return name;
    }

    std::string_view rest_;
    const std::string& where_;
};

/// Resolves links. A duplicate name refers to the later entry, as after unpacking.
class LinkTable {
public:
    explicit LinkTable(const std::vector<TarHeader>& headers) : headers_(headers) {
        for (std::size_t i = 0; i < headers.size(); ++i) by_name_[normal(headers[i].name)] = i;
    }

    /// The file that an entry leads to, or null.
    const TarHeader* file_of(const TarHeader& entry) const {
        const TarHeader* at = &entry;
        for (int steps = 0; steps < 40 && at->kind != TarHeader::Kind::file;
             ++steps) {  // the limit of Linux
            if (at->kind == TarHeader::Kind::other) return nullptr;
            const std::filesystem::path target =
                at->kind == TarHeader::Kind::symbolic_link
                    ? std::filesystem::path(at->name).parent_path() / at->target
                    : std::filesystem::path(at->target);
            const auto found = by_name_.find(normal(target));
            if (found == by_name_.end()) return nullptr;
            at = &headers_[found->second];
        }
        return at->kind == TarHeader::Kind::file ? at : nullptr;
    }

private:
    static std::string normal(const std::filesystem::path& path) {
        return path.lexically_normal().string();
    }

    const std::vector<TarHeader>& headers_;
    std::unordered_map<std::string, std::size_t> by_name_;
};

}  // namespace

TarFile::TarFile(std::filesystem::path path) : file_(std::move(path)) {
    const std::string where = file_.path().string();
    const std::string_view begin(reinterpret_cast<const char*>(file_.bytes().data()),
                                 std::min<std::size_t>(file_.bytes().size(), block));
    const bool is_tar = begin.size() == block && begin.substr(257, 5) == "ustar";
    if (const auto compression = compression_of(begin); !is_tar && !compression.empty())
        fail(
            "{}: is compressed ({}) and not read in place; unpack it, e.g. with: {}, and give the "
            "folder",
            where, compression, how_to_unpack(compression, where));
    if (file_.bytes().size() < block)
        fail("{}: is not a tar archive: it has {} bytes", where, file_.bytes().size());
    HeaderReader reader(file_.bytes(), where);
    std::vector<TarHeader> headers;
    bool has_links = false;
    while (auto header = reader.next()) {
        has_links |= header->kind != TarHeader::Kind::file;
        headers.push_back(std::move(*header));
    }
    std::optional<LinkTable> links;
    if (has_links) links.emplace(headers);
    for (const TarHeader& header : headers) {
        const TarHeader* file =
            header.kind == TarHeader::Kind::file ? &header : links->file_of(header);
        if (file != nullptr)
            entries_.push_back({header.name, std::as_bytes(std::span(file->body))});
        else
            passed_over_.push_back({header.name, header.kind == TarHeader::Kind::other
                                                     ? PassedOver::Why::other
                                                     : PassedOver::Why::dead_link});
    }
}

}  // namespace atelier::core
