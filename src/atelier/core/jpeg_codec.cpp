#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>

#include <jerror.h>

#include "atelier/core/error.h"
#include "atelier/core/image_codecs.h"

namespace atelier::core {

namespace {

// As in png_codec.cpp: libjpeg leaves through longjmp, so functions that call setjmp own nothing themselves.
struct ErrorReport {
    jpeg_error_mgr manager{};  // first: libjpeg's pointer to it is also one to this struct
    std::jmp_buf escape{};
    char message[JMSG_LENGTH_MAX] = "";
};

void leave(j_common_ptr jpeg) {
    auto& report = *reinterpret_cast<ErrorReport*>(jpeg->err);
    jpeg->err->format_message(jpeg, report.message);
    std::longjmp(report.escape, 1);
}

// libjpeg paints what a cut-off file lacks in grey and only warns. Other warnings (stray bytes) are common and harmless.
void judge_message(j_common_ptr jpeg, int level) {
    const int code = jpeg->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) leave(jpeg);
}

class JpegReader {
public:
    JpegReader(std::span<const std::uint8_t> file, const std::string& where) : where_(where) {
        jpeg_.err = jpeg_std_error(&report_.manager);
        report_.manager.error_exit = leave;
        report_.manager.emit_message = judge_message;
        check(start(file));
    }
    ~JpegReader() { jpeg_destroy_decompress(&jpeg_); }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;

    Image image(std::uint32_t longest) {
        check(read_header());
        if (jpeg_.image_width > longest || jpeg_.image_height > longest) {
            fail("{}: is {} x {} pixels; at most {} a side are read", where_, jpeg_.image_width, jpeg_.image_height,
                 longest);
        }
        if (jpeg_.num_components != 1 && jpeg_.num_components != 3) {
            fail("{}: is a JPEG of {} colours (CMYK?); convert it to RGB or grey", where_, jpeg_.num_components);
        }
        jpeg_.out_color_space = jpeg_.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
        Image image{static_cast<int>(jpeg_.image_height), static_cast<int>(jpeg_.image_width), jpeg_.num_components, {}};
        image.pixels.resize(std::size_t{jpeg_.image_height} * jpeg_.image_width * static_cast<std::size_t>(image.channels));
        check(read_rows(image.pixels.data(), std::size_t{jpeg_.image_width} * static_cast<std::size_t>(image.channels)));
        return image;
    }

private:
    void check(bool went_well) const {
        if (!went_well) fail("{}: is a broken JPEG ({})", where_, report_.message);
    }

    bool start(std::span<const std::uint8_t> file) {
        if (setjmp(report_.escape) != 0) return false;
        jpeg_create_decompress(&jpeg_);
        jpeg_mem_src(&jpeg_, file.data(), file.size());
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
            JSAMPROW row = pixels + jpeg_.output_scanline * row_bytes;
            jpeg_read_scanlines(&jpeg_, &row, 1);
        }
        jpeg_finish_decompress(&jpeg_);
        return true;
    }

    const std::string& where_;
    ErrorReport report_;
    jpeg_decompress_struct jpeg_{};
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
            auto* row = const_cast<JSAMPROW>(image.pixels.data()) + std::size_t{jpeg_.next_scanline} * jpeg_.image_width * std::size_t(image.channels);
            jpeg_write_scanlines(&jpeg_, &row, 1);
        }
        jpeg_finish_compress(&jpeg_);
        return true;
    }

    ErrorReport report_;
    jpeg_compress_struct jpeg_{};
    unsigned char* bytes_ = nullptr;  // libjpeg's, by malloc
    unsigned long size_ = 0;
};

}  // namespace

Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& where, std::uint32_t longest) { return JpegReader(file, where).image(longest); }

std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality) {
    check_image(image);
    return Writer().file_of(image, quality);
}

}  // namespace atelier::core
