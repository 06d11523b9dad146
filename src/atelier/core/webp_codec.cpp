#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>

#include <algorithm>
#include <string_view>

#include "atelier/core/error.h"
#include "atelier/core/exif.h"
#include "atelier/core/image_codecs.h"

namespace atelier::core {

namespace {

/// WebP has no grey images.
std::vector<std::uint8_t> in_rgb(const Image& image) {
    if (image.channels == 3) return image.pixels;
    std::vector<std::uint8_t> rgb;
    for (const std::uint8_t grey : image.pixels) rgb.insert(rgb.end(), 3, grey);
    return rgb;
}

/// The demuxer also takes a bare VP8 or VP8L stream, whose few bytes may claim any size.
bool begins_as_webp(std::span<const std::uint8_t> file) {
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    return text.starts_with("RIFF") && text.substr(0, 12).ends_with("WEBP");
}

class WebpReader {
public:
    WebpReader(std::span<const std::uint8_t> file, bool whole, const std::string& where)
        : where_(where), size_(file.size()) {
        if (!begins_as_webp(file)) fail("{}: is a broken WebP, or was cut off", where);
        const WebPData data{file.data(), file.size()};
        WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
        demuxer_ = whole ? ::WebPDemux(&data) : ::WebPDemuxPartial(&data, &state);
        if (demuxer_ == nullptr) fail("{}: is a broken WebP, or was cut off", where);
    }
    ~WebpReader() { ::WebPDemuxDelete(demuxer_); }
    WebpReader(const WebpReader&) = delete;
    WebpReader& operator=(const WebpReader&) = delete;

    void check_header(const DecodeOptions& options) const {
        check_sides(feature(WEBP_FF_CANVAS_HEIGHT), feature(WEBP_FF_CANVAS_WIDTH), where_, options);
    }

    Image image(const DecodeOptions& options, DecodeNotes& notes) const {
        check_header(options);
        const int exif = orientation();
        notes.rotated = exif != 1;
        return apply_orientation(first_frame(options, notes), exif);
    }

private:
    std::uint32_t feature(WebPFormatFeature what) const { return ::WebPDemuxGetI(demuxer_, what); }

    int orientation() const {
        if ((feature(WEBP_FF_FORMAT_FLAGS) & EXIF_FLAG) == 0) return 1;
        WebPChunkIterator chunk;
        const int found = ::WebPDemuxGetChunk(demuxer_, "EXIF", 1, &chunk);
        const int orientation =
            found != 0 ? exif_orientation({chunk.chunk.bytes, chunk.chunk.size}) : 1;
        ::WebPDemuxReleaseChunkIterator(&chunk);
        return orientation;
    }

    /// The image, or the first frame of an animation, which may cover only a part of the canvas.
    Image first_frame(const DecodeOptions& options, DecodeNotes& notes) const {
        WebPIterator frame;
        if (::WebPDemuxGetFrame(demuxer_, 1, &frame) == 0)
            fail("{}: is a WebP without an image", where_);
        const int height = static_cast<int>(feature(WEBP_FF_CANVAS_HEIGHT)),
                  width = static_cast<int>(feature(WEBP_FF_CANVAS_WIDTH));
        const bool covered = frame.width == width && frame.height == height,
                   plain = covered && frame.has_alpha == 0;
        const std::size_t channels = plain ? 3 : 4,
                          stride = channels * static_cast<std::size_t>(width);
        constexpr std::uint64_t max_pixels_per_byte = 65536;  // of a mostly empty canvas
        const bool sound = covered || std::uint64_t{static_cast<unsigned>(width)} *
                                              static_cast<unsigned>(height) / max_pixels_per_byte <=
                                          size_;
        std::vector<std::uint8_t> pixels(sound ? stride * static_cast<std::size_t>(height) : 0);
        bool read = false;
        if (sound) {
            const std::size_t begin = static_cast<std::size_t>(frame.y_offset) * stride +
                                      static_cast<std::size_t>(frame.x_offset) * channels;
            const auto decode = plain ? ::WebPDecodeRGBInto : ::WebPDecodeRGBAInto;
            read = decode(frame.fragment.bytes, frame.fragment.size, pixels.data() + begin,
                          pixels.size() - begin, static_cast<int>(stride)) != nullptr;
        }
        ::WebPDemuxReleaseIterator(&frame);
        if (!read) fail("{}: is a broken WebP", where_);
        if (plain) return {height, width, 3, std::move(pixels)};
        return flatten_alpha(height, width, 4, std::move(pixels), options, notes);
    }

    const std::string& where_;
    std::size_t size_;
    WebPDemuxer* demuxer_ = nullptr;
};

}  // namespace

Image decode_webp(std::span<const std::uint8_t> file, const std::string& where,
                  const DecodeOptions& options, DecodeNotes& notes) {
    return WebpReader(file, true, where).image(options, notes);
}

void check_webp_header(std::span<const std::uint8_t> file, std::uint64_t size,
                       const std::string& where, const DecodeOptions& options) {
    WebpReader(file, file.size() == size, where).check_header(options);
}

std::vector<std::uint8_t> encode_webp(const Image& image, int quality) {
    check_image(image);
    const std::vector<std::uint8_t> rgb = in_rgb(image);
    std::uint8_t* bytes = nullptr;
    const std::size_t size =
        quality == 100 ? ::WebPEncodeLosslessRGB(rgb.data(), image.width, image.height,
                                                 3 * image.width, &bytes)
                       : ::WebPEncodeRGB(rgb.data(), image.width, image.height, 3 * image.width,
                                         static_cast<float>(quality), &bytes);
    if (size == 0) fail("a WebP of {} x {} pixels cannot be written", image.width, image.height);
    std::vector<std::uint8_t> file(bytes, bytes + size);
    ::WebPFree(bytes);
    return file;
}

}  // namespace atelier::core
