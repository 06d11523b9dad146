#include "atelier/core/idx_file.h"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>

#include "atelier/core/error.h"
#include "atelier/core/regular_file.h"

namespace atelier::core {

namespace {

constexpr std::uint32_t idx_images_magic = 0x803, idx_labels_magic = 0x801;
constexpr std::int64_t longest_idx_side = 4096;

}  // namespace

/// The bytes of a file, decompressed where it is gzip.
struct IdxFile::Unpacked {
    explicit Unpacked(const std::filesystem::path& path) : where(path.string()) {
        const RegularFile file(path);
        // Deflate compresses at most 1032:1, so a header that declares more than this is wrong.
        constexpr std::uint64_t largest_file = std::numeric_limits<std::int64_t>::max() / 1100;
        most = std::min(file.size(), largest_file) * 1032;
        const int descriptor = ::dup(file.descriptor());
        stream = descriptor < 0 ? nullptr : gzdopen(descriptor, "rb");
        if (stream == nullptr) {
            if (descriptor >= 0) ::close(descriptor);
            fail("{}: cannot be read ({})", where, std::strerror(errno));
        }
    }
    ~Unpacked() { gzclose(stream); }
    Unpacked(const Unpacked&) = delete;
    Unpacked& operator=(const Unpacked&) = delete;

    std::uint32_t number() {
        std::array<std::uint8_t, 4> bytes;
        read(bytes);
        return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 |
               std::uint32_t{bytes[2]} << 8 | bytes[3];
    }

    std::int64_t side(const char* name) {
        const std::int64_t pixels = number();
        if (pixels < 1 || pixels > longest_idx_side) {
            fail("{}: images have {} {}; from 1 to {} are possible", where, pixels, name,
                 longest_idx_side);
        }
        return pixels;
    }

    void expect_magic(std::uint32_t magic, const char* content) {
        const std::uint32_t found = number();
        if (found == magic) return;
        fail("{}: begins with {:#010x}; an IDX file of {} begins with {:#010x}", where, found,
             content, magic);
    }

    /// Throws before anything is allocated when the file cannot hold so many bytes.
    void promise(std::uint64_t bytes) const {
        if (bytes <= most) return;
        fail("{}: its header promises {} bytes, more than the file can hold; is it damaged?", where,
             bytes);
    }

    void read(std::span<std::uint8_t> out) {
        while (!out.empty()) {
            const auto part = static_cast<unsigned>(std::min<std::size_t>(out.size(), 1 << 30));
            const int got = gzread(stream, out.data(), part);
            if (got < 0) fail_unpacking();
            if (got == 0) fail("{}: ends before what its header promises; was it cut off?", where);
            out = out.subspan(static_cast<std::size_t>(got));
        }
    }

    void expect_end() {
        std::uint8_t byte;
        const int got = gzread(stream, &byte, 1);
        if (got < 0) fail_unpacking();
        if (got > 0) fail("{}: is longer than its header says; is it damaged?", where);
    }

    [[noreturn]] void fail_unpacking() {
        int code = 0;
        fail("{}: cannot be unpacked ({}); was it cut off?", where, gzerror(stream, &code));
    }

    std::string where;
    std::uint64_t most = 0;
    gzFile stream = nullptr;
};

IdxFile::IdxFile(const std::filesystem::path& path, Content content)
    : file_(std::make_unique<Unpacked>(path)) {
    if (content == Content::images) {
        file_->expect_magic(idx_images_magic, "grey images");
        count_ = file_->number();
        rows_ = file_->side("rows");
        columns_ = file_->side("columns");
        if (count_ == 0) fail("{}: holds no images", file_->where);
    } else {
        file_->expect_magic(idx_labels_magic, "labels");
        count_ = file_->number();
    }
    file_->promise(static_cast<std::uint64_t>(count_ * rows_ * columns_));
}

IdxFile::~IdxFile() = default;

void IdxFile::read(std::span<std::uint8_t> out) {
    file_->read(out);
    file_->expect_end();
}

}  // namespace atelier::core
