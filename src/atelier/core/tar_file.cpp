#include "atelier/core/tar_file.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "atelier/core/error.h"

namespace atelier::core {

namespace {

constexpr std::size_t block = 512;
constexpr std::size_t longest_name = 4096;

/// The headers of an archive, one after another.
class HeaderReader {
public:
    HeaderReader(std::span<const std::byte> file, const std::string& where) : rest_(reinterpret_cast<const char*>(file.data()), file.size()), where_(where) {}

    /// The next regular file, or nothing at the end.
    std::optional<TarFile::Entry> next() {
        std::string long_name;
        while (rest_.size() >= block && rest_.substr(0, block).find_first_not_of('\0') != rest_.npos) {
            const std::string_view header = take(block);
            check_sum(header);
            const std::string_view body = take_body(number(header.substr(124, 12), "size"));
            const char type = header[156];
            if (type == 'L') {
                long_name = limited(text(body));
            } else if (type == 'x') {
                if (const auto path = pax_path(body)) long_name = limited(*path);
            } else {
                const std::string name = std::exchange(long_name, {});
                if (type == '0' || type == '\0') return TarFile::Entry{checked(name.empty() ? own_name(header) : name), std::as_bytes(std::span(body))};
            }
        }
        return std::nullopt;
    }

private:
    [[noreturn]] void broken(const std::string& what) const { fail("{}: is no tar archive, or a broken one: {}", where_, what); }

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

    static std::string_view text(std::string_view field) { return field.substr(0, field.find('\0')); }

    /// Octal digits, or with the highest bit set a big-endian binary number.
    std::uint64_t number(std::string_view field, const char* what) const {
        std::uint64_t value = 0;
        if ((field[0] & 0x80) != 0) {
            for (const char byte : field.substr(field.size() - 8)) value = value << 8 | static_cast<unsigned char>(byte);
            return value;
        }
        field = text(field);
        field = field.substr(std::min(field.find_first_not_of(' '), field.size()));
        const auto [end, problem] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
        if (problem != std::errc{}) broken(fmt::format("the {} of an entry is no number", what));
        return value;
    }

    void check_sum(std::string_view header) const {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < block; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(header[i]);
        if (sum != number(header.substr(148, 8), "checksum")) broken("the checksum of a header does not match");
    }

    static std::string own_name(std::string_view header) {
        const std::string_view prefix = header.substr(257, 5) == "ustar" ? text(header.substr(345, 155)) : "";
        const std::string_view name = text(header.substr(0, 100));
        return prefix.empty() ? std::string(name) : std::string(prefix) + "/" + std::string(name);
    }

    /// Records are "length key=value\n".
    static std::optional<std::string_view> pax_path(std::string_view records) {
        while (!records.empty()) {
            std::size_t length = 0;
            const auto [end, problem] = std::from_chars(records.data(), records.data() + records.size(), length);
            if (problem != std::errc{} || length == 0 || length > records.size()) return std::nullopt;
            const std::string_view record = records.substr(0, length);
            const std::size_t key = record.find(' ') + 1;
            if (record.substr(key).starts_with("path=") && record.ends_with('\n')) return record.substr(key + 5, record.size() - key - 6);
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
        if (path.is_absolute() || std::ranges::find(path, "..") != path.end()) fail("{}: the entry \"{}\" would lie outside of the archive", where_, name);
        return name;
    }

    std::string_view rest_;
    const std::string& where_;
};

}  // namespace

TarFile::TarFile(std::filesystem::path path) : file_(std::move(path)) {
    const std::string where = file_.path().string();
    if (file_.bytes().size() < block) fail("{}: is no tar archive: it has {} bytes", where, file_.bytes().size());
    HeaderReader reader(file_.bytes(), where);
    while (auto entry = reader.next()) entries_.push_back(std::move(*entry));
}

}  // namespace atelier::core
