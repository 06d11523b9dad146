#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>

#include <jerror.h>

#include <algorithm>
#include <cstring>

#include "atelier/core/error.h"
#include "atelier/core/exif.h"
#include "atelier/core/image_codecs.h"

namespace atelier::core {

namespace {

// As in png_codec.cpp: libjpeg reports errors through longjmp, so functions that call setjmp must
// not own anything.
struct ErrorReport {
    jpeg_error_mgr manager{};  // must be first: libjpeg's pointer to it is cast to this struct
    std::jmp_buf escape{};
    char message[JMSG_LENGTH_MAX] = "";
};

void leave(j_common_ptr jpeg) {
    auto& report = *reinterpret_cast<ErrorReport*>(jpeg->err);
    jpeg->err->format_message(jpeg, report.message);
    std::longjmp(report.escape, 1);
}

// libjpeg fills the missing part of a truncated file with grey and only warns. Other warnings
// (stray bytes) are common and harmless.
void judge_message(j_common_ptr jpeg, int level) {
    const int code = jpeg->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) leave(jpeg);
}

// A scan of a progressive file may take a few bytes and traverse all pixels; real files have about
// ten.
void count_scans(j_common_ptr jpeg) {
    constexpr int most = 500;
    if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number <= most) return;
    auto& report = *reinterpret_cast<ErrorReport*>(jpeg->err);
    std::snprintf(report.message, sizeof report.message, "it has more than %d scans", most);
    std::longjmp(report.escape, 1);
}

/// a * b / 255, rounded as in Pillow.
unsigned scaled_by(unsigned a, unsigned b) {
    const unsigned product = a * b + 128;
    return ((product >> 8) + product) >> 8;
}

/// CMYK as Photoshop and Pillow store it in JPEGs: 255 is no ink.
void to_rgb(const std::uint8_t* cmyk, std::size_t count, std::uint8_t* rgb) {
    for (std::size_t i = 0; i < count; ++i, cmyk += 4) {
        const unsigned light = cmyk[3];
        for (int c = 0; c < 3; ++c)
            *rgb++ = static_cast<std::uint8_t>(light -
                                               std::min(light, scaled_by(255U - cmyk[c], light)));
    }
}

class JpegReader {
public:
    JpegReader(std::span<const std::uint8_t> file, std::uint64_t size, const std::string& where)
        : size_(size), where_(where) {
        jpeg_.err = jpeg_std_error(&report_.manager);
        report_.manager.error_exit = leave;
        report_.manager.emit_message = judge_message;
        progress_.progress_monitor = count_scans;
        if (start(file)) return;
        jpeg_destroy_decompress(&jpeg_);  // the destructor does not run when a constructor throws
        check(false);
    }
    ~JpegReader() { jpeg_destroy_decompress(&jpeg_); }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;

    void read_checked_header(const DecodeOptions& options) {
        check(read_header());
        check_sides(jpeg_.image_height, jpeg_.image_width, where_, options);
        if (jpeg_.num_components != 1 && jpeg_.num_components != 3 && jpeg_.num_components != 4) {
            fail("{}: is a JPEG of {} colours; 1, 3 and 4 (CMYK) are read", where_,
                 jpeg_.num_components);
        }
        expect_long_enough();
    }

    Image image(const DecodeOptions& options, DecodeNotes& notes) {
        read_checked_header(options);
        notes.cmyk = jpeg_.num_components == 4;
        jpeg_.out_color_space = jpeg_.num_components == 1 ? JCS_GRAYSCALE
                                : notes.cmyk              ? JCS_CMYK
                                                          : JCS_RGB;
        Image image{static_cast<int>(jpeg_.image_height),
                    static_cast<int>(jpeg_.image_width),
                    jpeg_.num_components == 1 ? 1 : 3,
                    {}};
        image.pixels.resize(std::size_t{jpeg_.image_height} * jpeg_.image_width *
                            static_cast<std::size_t>(image.channels));
        cmyk_row_.resize(notes.cmyk ? std::size_t{4} * jpeg_.image_width : 0);
        const int exif = orientation();
        check(read_rows(image.pixels.data(),
                        std::size_t{jpeg_.image_width} * static_cast<std::size_t>(image.channels)));
        notes.rotated = exif != 1;
        return apply_orientation(std::move(image), exif);
    }

private:
    void check(bool went_well) const {
        if (!went_well) fail("{}: is a broken JPEG ({})", where_, report_.message);
    }

    /// Huffman codes have at least one bit: a block takes two in a single scan, and one in the
    /// first scan of a progressive file, where later scans may take none. Arithmetic codes may take
    /// almost nothing.
    void expect_long_enough() const {
        const jpeg_component_info& first = jpeg_.comp_info[0];
        const auto blocks_along = [](std::uint64_t side, int factor, int largest) {
            const std::uint64_t unit = std::uint64_t{8} * static_cast<std::uint64_t>(largest);
            return (side * static_cast<std::uint64_t>(factor) + unit - 1) / unit;
        };
        const std::uint64_t blocks =
            blocks_along(jpeg_.image_width, first.h_samp_factor, jpeg_.max_h_samp_factor) *
            blocks_along(jpeg_.image_height, first.v_samp_factor, jpeg_.max_v_samp_factor);
        const std::uint64_t blocks_per_byte = jpeg_.arith_code         ? 1000
                                              : jpeg_.progressive_mode ? 8
                                                                       : 4;
        if (blocks / blocks_per_byte > size_)
            fail("{}: is too short for {} x {} pixels; was it cut off?", where_, jpeg_.image_width,
                 jpeg_.image_height);
    }

    int orientation() const {
        for (jpeg_saved_marker_ptr marker = jpeg_.marker_list; marker != nullptr;
             marker = marker->next) {
            if (marker->data_length >= 6 && std::memcmp(marker->data, "Exif\0\0", 6) == 0)
                return exif_orientation({marker->data, marker->data_length});
        }
        return 1;
    }

    bool start(std::span<const std::uint8_t> file) {
        if (setjmp(report_.escape) != 0) return false;
        jpeg_create_decompress(&jpeg_);
        jpeg_.progress = &progress_;
        jpeg_mem_src(&jpeg_, file.data(), file.size());
        jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xffff);
        return true;
    }

    bool read_header() {
        if (setjmp(report_.escape) != 0) return false;
        jpeg_read_header(&jpeg_, TRUE);
        return true;
    }

    bool read_rows(std::uint8_t* pixels, std::size_t row_bytes) {
        if (setjmp(report_.escape) != 0) return false;
        jpeg_start_decompress(&jpeg_);
        while (jpeg_.output_scanline < jpeg_.output_height) {
            std::uint8_t* target = pixels + jpeg_.output_scanline * row_bytes;
            JSAMPROW row = cmyk_row_.empty() ? target : cmyk_row_.data();
            jpeg_read_scanlines(&jpeg_, &row, 1);
            if (!cmyk_row_.empty()) to_rgb(cmyk_row_.data(), jpeg_.image_width, target);
        }
        jpeg_finish_decompress(&jpeg_);
        return true;
    }

    std::uint64_t size_;
    const std::string& where_;
    ErrorReport report_;
    jpeg_progress_mgr progress_{};
    jpeg_decompress_struct jpeg_{};
    std::vector<std::uint8_t> cmyk_row_;  // empty unless the file is CMYK
};

class Writer {
public:
    Writer() {
        jpeg_.err = jpeg_std_error(&report_.manager);
        report_.manager.error_exit = leave;
    }
    ~Writer() {
        jpeg_destroy_compress(&jpeg_);
        std::free(bytes_);
    }
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    std::vector<std::uint8_t> file_of(const Image& image, int quality) {
        if (!write_all(image, quality)) fail("a JPEG cannot be written ({})", report_.message);
        return {bytes_, bytes_ + size_};
    }

private:
    bool write_all(const Image& image, int quality) {
        if (setjmp(report_.escape) != 0) return false;
        jpeg_create_compress(&jpeg_);
        jpeg_mem_dest(&jpeg_, &bytes_, &size_);
        jpeg_.image_width = static_cast<JDIMENSION>(image.width);
        jpeg_.image_height = static_cast<JDIMENSION>(image.height);
        jpeg_.input_components = image.channels;
        jpeg_.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
        jpeg_set_defaults(&jpeg_);
        jpeg_set_quality(&jpeg_, quality, TRUE);
        jpeg_start_compress(&jpeg_, TRUE);
        while (jpeg_.next_scanline < jpeg_.image_height) {
            auto* row =
                const_cast<JSAMPROW>(image.pixels.data()) +
                std::size_t{jpeg_.next_scanline} * jpeg_.image_width * std::size_t(image.channels);
            jpeg_write_scanlines(&jpeg_, &row, 1);
        }
        jpeg_finish_compress(&jpeg_);
        return true;
    }

    ErrorReport report_;
    jpeg_compress_struct jpeg_{};
    unsigned char* bytes_ = nullptr;  // allocated by libjpeg with malloc
    unsigned long size_ = 0;
};

}  // namespace

Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& where,
                  const DecodeOptions& options, DecodeNotes& notes) {
    return JpegReader(file, file.size(), where).image(options, notes);
}

void check_jpeg_header(std::span<const std::uint8_t> file, std::uint64_t size,
                       const std::string& where, const DecodeOptions& options) {
    JpegReader(file, size, where).read_checked_header(options);
}

std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality) {
    check_image(image);
    return Writer().file_of(image, quality);
}

}  // namespace atelier::core
