#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/core/exif.h"
#include "atelier/core/image_codecs.h"
#include "atelier/core/text_encoding.h"

namespace atelier::core {

namespace {

// libpng reports errors through longjmp, which skips destructors: functions below that call setjmp
// must not own anything; everything they fill belongs to their callers.

void remember_error(png_structp png, png_const_charp message) {
    *static_cast<std::string*>(png_get_error_ptr(png)) = message;
    png_longjmp(png, 1);
}

void ignore_warning(png_structp, png_const_charp) {}

/// Text of a chunk as UTF-8. Bytes that are not UTF-8 are Latin-1, as tEXt is defined; our earlier
/// versions wrote UTF-8 there.
std::string utf8_of(std::string_view text) {
    return first_bad_byte(text) ? from_latin1(text) : std::string(text);
}

/// Text that Latin-1 and UTF-8 readers agree on: printable ASCII and line feeds.
bool is_plain(std::string_view text) {
    return std::ranges::all_of(text, [](char c) { return (c >= ' ' && c < 0x7f) || c == '\n'; });
}

/// Replaces NUL, which PNG text may not contain, by its symbol U+2400.
std::string without_nul(const std::string& text) {
    std::string out;
    for (const char c : text) c == '\0' ? out += "\xe2\x90\x80" : out += c;
    return out;
}

class PngReader {
public:
    PngReader(std::span<const std::uint8_t> file, std::uint64_t size, const std::string& where)
        : left_(file), file_(file), size_(size), where_(where) {
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &problem_, remember_error,
                                      ignore_warning);
        info_ = png_ != nullptr ? png_create_info_struct(png_) : nullptr;
        if (info_ == nullptr) fail("{}: libpng cannot be started", where);
        png_set_read_fn(png_, this, take);
        png_set_user_limits(png_, PNG_UINT_31_MAX,
                            PNG_UINT_31_MAX);  // check_sides gives a clearer message
        // Limit for compressed text and profiles, which are decompressed as a whole.
        const std::uint64_t most = std::min<std::uint64_t>(10 * size + (1U << 16), 8'000'000);
        png_set_chunk_malloc_max(png_, static_cast<png_alloc_size_t>(most));
    }
    ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;

    void read_checked_header(const DecodeOptions& options) {
        expect_whole_chunks();
        check(read_size());
        check_sides(height_, width_, where_, options);
        // Deflate compresses at most 1032:1: a short file that claims to be huge is rejected before
        // memory is allocated.
        if (std::uint64_t{width_} * height_ * bits_per_pixel_ / 8 > (size_ + 1) * 1032) {
            fail("{}: is too short for {} x {} pixels; was it cut off?", where_, width_, height_);
        }
    }

    Image image(const DecodeOptions& options, DecodeNotes& notes) {
        read_checked_header(options);
        check(set_transforms());
        std::vector<std::uint8_t> pixels;
        const std::size_t row_bytes = std::size_t{width_} * static_cast<std::size_t>(channels_);
        pixels.resize(row_bytes * height_);
        std::vector<png_bytep> rows(height_);
        for (std::size_t y = 0; y < height_; ++y) rows[y] = pixels.data() + y * row_bytes;
        check(read_rows(rows.data()));
        const int height = static_cast<int>(height_), width = static_cast<int>(width_),
                  exif = orientation();
        notes.rotated = exif != 1;
        if (channels_ == 1 || channels_ == 3)
            return apply_orientation({height, width, channels_, std::move(pixels)}, exif);
        return apply_orientation(
            flatten_alpha(height, width, channels_, std::move(pixels), options, notes), exif);
    }

    std::map<std::string, std::string> text() {
        DecodeNotes notes;
        image({}, notes);  // text may also follow the pixels
        check(read_end());
        png_textp texts = nullptr;
        int count = 0;
        png_get_text(png_, info_, &texts, &count);
        std::map<std::string, std::string> found;
        for (const auto& text : std::span(texts, static_cast<std::size_t>(count))) {
            if (text.compression == PNG_TEXT_COMPRESSION_NONE)
                found[text.key] = utf8_of({text.text, text.text_length});
            if (text.compression == PNG_ITXT_COMPRESSION_NONE)
                found[text.key] = utf8_of({text.text, text.itxt_length});
        }
        return found;
    }

private:
    static void take(png_structp png, png_bytep out, std::size_t count) {
        auto& reader = *static_cast<PngReader*>(png_get_io_ptr(png));
        if (count > reader.left_.size()) png_error(png, "the file ends too early");
        std::memcpy(out, reader.left_.data(), count);
        reader.left_ = reader.left_.subspan(count);
    }

    void check(bool went_well) const {
        if (!went_well) fail("{}: is a broken PNG ({})", where_, problem_);
    }

    /// libpng allocates the size that a chunk declares before reading it.
    void expect_whole_chunks() const {
        constexpr std::uint64_t signature = 8, before = 8, around = 12;  // length, name; checksum
        for (std::uint64_t at = signature; at + before <= file_.size();) {
            const png_const_bytep chunk = file_.data() + at;
            const std::uint64_t length = png_get_uint_32(chunk);
            if (std::memcmp(chunk + 4, "IEND", 4) == 0) return;
            if (length > size_ - std::min<std::uint64_t>(size_, at + before)) {
                fail("{}: is a broken PNG (a chunk of {} bytes is longer than the file)", where_,
                     length);
            }
            at += around + length;
        }
    }

    bool read_size() {
        if (setjmp(png_jmpbuf(png_)) != 0) return false;
        png_read_info(png_, info_);
        width_ = png_get_image_width(png_, info_);
        height_ = png_get_image_height(png_, info_);
        bits_per_pixel_ = png_get_channels(png_, info_) * png_get_bit_depth(png_, info_);
        return true;
    }

    bool set_transforms() {
        if (setjmp(png_jmpbuf(png_)) != 0) return false;
        png_set_palette_to_rgb(png_);
        png_set_expand_gray_1_2_4_to_8(png_);
        png_set_scale_16(png_);
        if (png_get_valid(png_, info_, PNG_INFO_tRNS) != 0) png_set_tRNS_to_alpha(png_);
        png_set_interlace_handling(png_);
        png_read_update_info(png_, info_);
        channels_ = png_get_channels(png_, info_);
        if (png_get_rowbytes(png_, info_) !=
            std::size_t{width_} * static_cast<std::size_t>(channels_)) {
            png_error(png_, "its rows have an unexpected length");
        }
        return true;
    }

    bool read_rows(png_bytepp rows) {
        if (setjmp(png_jmpbuf(png_)) != 0) return false;
        png_read_image(png_, rows);
        return true;
    }

    bool read_end() {
        if (setjmp(png_jmpbuf(png_)) != 0) return false;
        png_read_end(png_, info_);
        return true;
    }

    /// Orientation from the eXIf chunk, which may follow the pixels, where libpng would read it
    /// only at the end of the file.
    int orientation() const {
        constexpr std::size_t signature = 8, around = 12;  // length, type and checksum of a chunk
        for (std::size_t offset = signature; file_.size() - offset >= around;) {
            const std::uint32_t length = png_get_uint_32(file_.data() + offset);
            if (length > file_.size() - offset - around) break;
            if (std::memcmp(file_.data() + offset + 4, "eXIf", 4) == 0)
                return exif_orientation(file_.subspan(offset + 8, length));
            offset += around + length;
        }
        return 1;
    }

    std::span<const std::uint8_t> left_, file_;
    std::uint64_t size_;
    const std::string& where_;
    std::string problem_;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    std::uint32_t width_ = 0, height_ = 0, bits_per_pixel_ = 0;
    int channels_ = 0;
};

void append(png_structp png, png_bytep bytes, std::size_t count) {
    auto& out = *static_cast<std::vector<std::uint8_t>*>(png_get_io_ptr(png));
    out.insert(out.end(), bytes, bytes + count);
}

/// Level 6 and the default filters, independent of zlib's default: equal pixels give equal bytes.
void choose_compression(png_structp png, const Image& image, PngSize size) {
    constexpr std::size_t too_few = 2048;  // bytes
    if (size == PngSize::smallest || image.pixels.size() > too_few) {
        png_set_compression_level(png, 6);
        return;
    }
    png_set_compression_level(png, 0);
    png_set_compression_mem_level(png, 1);
    png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_NONE);
}

bool write_all(png_structp png, png_infop info, const Image& image, PngSize size, png_textp texts,
               int text_count, png_bytepp rows) {
    if (setjmp(png_jmpbuf(png)) != 0) return false;
    choose_compression(png, image, size);
    png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
                 static_cast<png_uint_32>(image.height), 8,
                 image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (text_count > 0) png_set_text(png, info, texts, text_count);
    png_write_info(png, info);
    png_write_image(png, rows);
    png_write_end(png, info);
    return true;
}

/// Values as they are written: UTF-8 where they are not plain.
std::map<std::string, std::string> writable(const std::map<std::string, std::string>& text) {
    std::map<std::string, std::string> out;
    for (const auto& [keyword, value] : text)
        out[keyword] = is_plain(value) ? value : without_nul(utf8_of(value));
    return out;
}

/// A tEXt chunk per plain value, an iTXt chunk per other value. They point into `text`.
std::vector<png_text> text_chunks(const std::map<std::string, std::string>& text) {
    static char no_language[] = "";
    std::vector<png_text> chunks;
    for (const auto& [keyword, value] : text) {
        if (keyword.empty() || keyword.size() > 79)
            fail("a PNG's text keyword must have 1 to 79 letters, not \"{}\"", keyword);
        png_text chunk{};
        chunk.compression = is_plain(value) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        chunk.key = const_cast<char*>(keyword.c_str());
        chunk.text = const_cast<char*>(value.c_str());
        chunk.text_length = value.size();
        chunk.lang = chunk.lang_key = no_language;
        chunks.push_back(chunk);
    }
    return chunks;
}

}  // namespace

Image decode_png(std::span<const std::uint8_t> file, const std::string& where,
                 const DecodeOptions& options, DecodeNotes& notes) {
    return PngReader(file, file.size(), where).image(options, notes);
}

void check_png_header(std::span<const std::uint8_t> file, std::uint64_t size,
                      const std::string& where, const DecodeOptions& options) {
    PngReader(file, size, where).read_checked_header(options);
}

std::map<std::string, std::string> decode_png_text(std::span<const std::uint8_t> file,
                                                   const std::string& where) {
    return PngReader(file, file.size(), where).text();
}

std::vector<std::uint8_t> encode_png(const Image& image,
                                     const std::map<std::string, std::string>& text, PngSize size) {
    check_image(image);
    const std::map<std::string, std::string> written = writable(text);
    std::vector<png_text> texts = text_chunks(written);
    std::vector<png_bytep> rows(static_cast<std::size_t>(image.height));
    const std::size_t row_bytes =
        static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
    for (std::size_t y = 0; y < rows.size(); ++y)
        rows[y] = const_cast<png_bytep>(image.pixels.data() + y * row_bytes);

    std::string problem;
    std::vector<std::uint8_t> out;
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, &problem, remember_error, ignore_warning);
    png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
    if (info == nullptr) fail("libpng cannot be started");
    png_set_write_fn(png, &out, append, nullptr);
    const bool went_well = write_all(png, info, image, size, texts.data(),
                                     static_cast<int>(texts.size()), rows.data());
    png_destroy_write_struct(&png, &info);
    if (!went_well) fail("a PNG cannot be written ({})", problem);
    return out;
}

}  // namespace atelier::core
