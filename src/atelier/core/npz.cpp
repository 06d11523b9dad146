#include "atelier/core/npz.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <set>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/npy_header.h"
#include "atelier/core/regular_file.h"

namespace atelier::core {

namespace {

constexpr std::string_view ending = ".npy";

using WriteArchive = std::unique_ptr<archive, decltype(&archive_write_free)>;
using ReadArchive = std::unique_ptr<archive, decltype(&archive_read_free)>;
using Entry = std::unique_ptr<archive_entry, decltype(&archive_entry_free)>;

std::string archive_error(archive* zip) {
    const char* message = archive_error_string(zip);
    return message != nullptr ? message : "unknown error";
}

void check_array(const TensorBytes& array, const std::string& where) {
    if (bytes_of(array.dtype, array.shape) == array.bytes.size()) return;
    fail("{}: is {} {} but has {} bytes", where, name_of(array.dtype), to_string(array.shape),
         array.bytes.size());
}

void write_entry(archive* zip, const TensorBytes& array, const std::string& where) {
    check_array(array, where);
    const std::string header = compose_npy_header({array.dtype, array.shape}, where);
    const Entry entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), (array.name + std::string(ending)).c_str());
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_size(entry.get(),
                           static_cast<la_int64_t>(header.size() + array.bytes.size()));
    // Zip times begin in 1980 and are local; 0 lies before that and gives the same bytes in every
    // time zone.
    archive_entry_set_mtime(entry.get(), 0, 0);
    const auto write = [&](const void* bytes, std::size_t count) {
        return count == 0 ||
               archive_write_data(zip, bytes, count) == static_cast<la_ssize_t>(count);
    };
    if (archive_write_header(zip, entry.get()) != ARCHIVE_OK ||
        !write(header.data(), header.size()) || !write(array.bytes.data(), array.bytes.size())) {
        fail("{}: writing failed ({})", where, archive_error(zip));
    }
}

/// The destination of libarchive's output, and the exception that stopped it: nothing may be thrown
/// through libarchive's frames.
struct WriteTarget {
    AtomicFile& file;
    std::exception_ptr problem;
};

la_ssize_t write_to_file(archive* zip, void* user_data, const void* bytes, std::size_t count) {
    auto& target = *static_cast<WriteTarget*>(user_data);
    try {
        target.file.write({static_cast<const std::byte*>(bytes), count});
        return static_cast<la_ssize_t>(count);
    } catch (...) {
        target.problem = std::current_exception();
        archive_set_error(zip, EIO, "writing failed");
        return -1;
    }
}

// Reads the current entry; throws Error when the archive is broken.
class EntryReader {
public:
    EntryReader(archive* zip, std::string where) : zip_(zip), where_(std::move(where)) {}

    /// Returns fewer bytes than requested only at the end of the entry, where libarchive also
    /// verifies the checksum.
    std::size_t read(std::span<std::byte> out) {
        std::size_t filled = 0;
        while (filled < out.size()) {
            const la_ssize_t got =
                archive_read_data(zip_, out.data() + filled, out.size() - filled);
            if (got < 0) fail("{}: is broken ({})", where_, archive_error(zip_));
            if (got == 0) break;
            filled += static_cast<std::size_t>(got);
        }
        return filled;
    }

    Array array(std::uint64_t largest) {
        const NpyHeader header = read_header();
        const auto size = bytes_of(header.dtype, header.shape);
        if (!size || *size > largest) {
            fail("{}: is {} {}, larger than the {} bytes that may be read", where_,
                 name_of(header.dtype), to_string(header.shape), largest);
        }
        Array array{header.dtype, header.shape, {}};
        read_data(array.bytes, static_cast<std::size_t>(*size));
        std::byte extra{};
        if (read(std::span(&extra, 1)) != 0)
            fail("{}: is longer than its shape {} says", where_, to_string(header.shape));
        return array;
    }

    NpyHeader read_header() {
        std::vector<std::byte> bytes(npy_prefix);
        bytes.resize(read(bytes));
        const NpyHeaderRange range = npy_header_range(bytes, where_);
        if (range.end < npy_prefix) fail("{}: has a header that is not numpy's", where_);
        bytes.resize(range.end);
        if (read(std::span(bytes).subspan(npy_prefix)) != range.end - npy_prefix)
            fail("{}: ends within its header", where_);
        return parse_npy_header(
            std::string(reinterpret_cast<const char*>(bytes.data()) + range.begin,
                        range.end - range.begin),
            where_);
    }

private:
    // In blocks, so that a short file that claims a huge array takes little memory.
    void read_data(std::vector<std::byte>& bytes, std::size_t size) {
        constexpr std::size_t block_size = std::size_t{64} << 20;
        while (bytes.size() < size) {
            const std::size_t before = bytes.size();
            bytes.resize(std::min(size, before + block_size));
            if (read(std::span(bytes).subspan(before)) != bytes.size() - before)
                fail("{}: ends before its shape says", where_);
        }
    }

    archive* zip_;
    std::string where_;
};

}  // namespace

void write_npz(const std::filesystem::path& path, const std::vector<TensorBytes>& arrays) {
    const std::string where = path.string();
    AtomicFile file(path);
    WriteTarget target{file,
                       nullptr};  // must outlive the archive, which writes again when it is freed
    const WriteArchive zip(archive_write_new(), archive_write_free);
    archive_write_set_format_zip(zip.get());
    archive_write_zip_set_compression_store(zip.get());
    archive_write_set_bytes_in_last_block(zip.get(), 1);  // no padding
    if (archive_write_open(zip.get(), &target, nullptr, write_to_file, nullptr) != ARCHIVE_OK) {
        fail("{}: cannot be written ({})", where, archive_error(zip.get()));
    }
    std::set<std::string> names;
    for (const auto& array : arrays) {
        const std::string label = fmt::format("{}: array \"{}\"", where, array.name);
        if (!names.insert(array.name).second) fail("{}: is given twice", label);
        try {
            write_entry(zip.get(), array, label);
        } catch (const Error&) {
            if (target.problem) std::rethrow_exception(target.problem);
            throw;
        }
    }
    const int closed = archive_write_close(zip.get());
    if (target.problem) std::rethrow_exception(target.problem);
    if (closed != ARCHIVE_OK) fail("{}: writing failed ({})", where, archive_error(zip.get()));
    file.commit();
}

namespace {

/// Calls `visit(archive, name)` for each entry.
template <class Visit>
void for_each_entry(const std::filesystem::path& path, const Visit& visit) {
    const std::string where = path.string();
    const RegularFile file(path);
    const ReadArchive zip(archive_read_new(), archive_read_free);
    archive_read_support_format_zip(zip.get());
    if (archive_read_open_fd(zip.get(), file.descriptor(), std::size_t{1} << 20) != ARCHIVE_OK) {
        fail("{}: is not a numpy .npz ({})", where, archive_error(zip.get()));
    }
    for (;;) {
        archive_entry* entry = nullptr;
        const int status = archive_read_next_header(zip.get(), &entry);
        if (status == ARCHIVE_EOF) return;
        if (status != ARCHIVE_OK)
            fail("{}: is not a numpy .npz ({})", where, archive_error(zip.get()));
        const char* pathname = archive_entry_pathname(entry);
        visit(zip.get(), std::string(pathname != nullptr ? pathname : ""));
    }
}

std::map<std::string, Array> read_arrays(const std::filesystem::path& path,
                                         const std::set<std::string>* requested,
                                         std::uint64_t left) {
    std::map<std::string, Array> arrays;
    for_each_entry(path, [&](archive* zip, std::string name) {
        const bool is_array = name.ends_with(ending);
        if (is_array) name.resize(name.size() - ending.size());
        if (requested && !(is_array && requested->contains(name))) return;
        if (!is_array) fail("{}: holds \"{}\", which is not a .npy array", path.string(), name);
        const std::string label = fmt::format("{}: array \"{}\"", path.string(), name);
        const auto [array, is_new] = arrays.emplace(name, EntryReader(zip, label).array(left));
        if (!is_new) fail("{}: appears twice", label);
        left -= array->second.bytes.size();
    });
    return arrays;
}

}  // namespace

std::map<std::string, Array> read_npz(const std::filesystem::path& path, std::size_t largest) {
    return read_arrays(path, nullptr, largest);
}

std::map<std::string, Array> read_npz(const std::filesystem::path& path,
                                      const std::set<std::string>& requested, std::size_t largest) {
    return read_arrays(path, &requested, largest);
}

std::optional<NpyHeader> header_in_npz(const std::filesystem::path& path, const std::string& name) {
    std::optional<NpyHeader> header;
    for_each_entry(path, [&](archive* zip, const std::string& entry) {
        if (header || entry != name + std::string(ending)) return;
        header =
            EntryReader(zip, fmt::format("{}: array \"{}\"", path.string(), name)).read_header();
    });
    return header;
}

std::set<std::string> names_in_npz(const std::filesystem::path& path) {
    std::set<std::string> names;
    for_each_entry(path, [&](archive*, const std::string& name) {
        if (name.ends_with(ending)) names.insert(name.substr(0, name.size() - ending.size()));
    });
    return names;
}

}  // namespace atelier::core
