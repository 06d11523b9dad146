#include "atelier/core/image_file.h"

#include <algorithm>
#include <string_view>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/image_codecs.h"

namespace atelier::core {

namespace {

constexpr std::string_view png_signature = "\x89PNG\r\n\x1a\n";
constexpr std::string_view jpeg_signature = "\xff\xd8\xff";
constexpr std::uint8_t mid_grey = 128;

using ImageBytes = std::span<const std::uint8_t>;

struct ImageFormat {
    bool (*begins)(std::string_view file);
    Image (*decode)(ImageBytes, const std::string&, const DecodeOptions&, DecodeNotes&);
    void (*check)(ImageBytes, std::uint64_t, const std::string&, const DecodeOptions&);
};

constexpr ImageFormat image_formats[]{
    {[](std::string_view file) { return file.starts_with(png_signature); }, decode_png,
     check_png_header},
    {[](std::string_view file) { return file.starts_with(jpeg_signature); }, decode_jpeg,
     check_jpeg_header},
    {[](std::string_view file) {
         return file.starts_with("RIFF") && file.substr(0, 12).ends_with("WEBP");
     },
     decode_webp, check_webp_header},
};

/// Message for a file that is not a supported image: what it is instead.
std::string describe_unsupported(std::string_view file) {
    if (file.empty()) return "is empty";
    struct Known {
        std::size_t offset;
        std::string_view begin;
        const char* name;
    };
    constexpr Known known[]{
        {0, "GIF8", "a GIF"},
        {0, "BM", "a BMP"},
        {0, std::string_view("II*\0", 4), "a TIFF"},
        {0, std::string_view("MM\0*", 4), "a TIFF"},
        {4, "ftypavif", "an AVIF"},
        {4, "ftyphei", "a HEIC"},
        {4, "ftypmif1", "a HEIC"},
        {0, "\x1f\x8b", "gzip data"},
        {0, "PK\3\4", "a zip archive"},
        {0, "%PDF", "a PDF"},
        {0, "8BPS", "a Photoshop file"},
        {0, "version https://git-lfs", "a Git LFS pointer, not the file itself (git lfs pull)"}};
    for (const auto& [offset, begin, name] : known) {
        if (file.substr(std::min(offset, file.size())).starts_with(begin))
            return fmt::format("is {}; PNG, JPEG and WebP are read", name);
    }
    const std::size_t first = file.find_first_not_of(" \t\r\n");
    if (first != file.npos && file[first] == '<')
        return "is a web page or SVG, not a PNG, JPEG or WebP";
    return "is neither a PNG, a JPEG nor a WebP";
}

const ImageFormat& format_of(std::string_view file, const std::string& where) {
    for (const ImageFormat& format : image_formats) {
        if (format.begins(file)) return format;
    }
    fail("{}: {}", where, describe_unsupported(file));
}

std::string_view text_of_bytes(std::span<const std::byte> file) {
    return {reinterpret_cast<const char*>(file.data()), file.size()};
}
ImageBytes bytes_of(std::span<const std::byte> file) {
    return {reinterpret_cast<const std::uint8_t*>(file.data()), file.size()};
}

std::span<const std::uint8_t> bytes_of(const std::string& file) {
    return {reinterpret_cast<const std::uint8_t*>(file.data()), file.size()};
}

// Copies `image` into `sheet` with its corner at (top, left), each pixel `zoom` x `zoom` times.
void paste(const Image& image, Image& sheet, int top, int left, int zoom) {
    const auto channels = static_cast<std::size_t>(sheet.channels);
    for (int y = 0; y < image.height * zoom; ++y) {
        auto* out =
            sheet.pixels.data() +
            (std::size_t(top + y) * std::size_t(sheet.width) + std::size_t(left)) * channels;
        const auto* row =
            image.pixels.data() + std::size_t(y / zoom) * std::size_t(image.width) * channels;
        for (int x = 0; x < image.width * zoom; ++x)
            out = std::copy_n(row + std::size_t(x / zoom) * channels, channels, out);
    }
}

}  // namespace

void check_image(const Image& image) {
    const bool sides =
        image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3);
    if (sides && image.pixels.size() == std::size_t(image.height) * std::size_t(image.width) *
                                            std::size_t(image.channels))
        return;
    fail("an image of {} x {} pixels, {} channels and {} bytes cannot be written", image.width,
         image.height, image.channels, image.pixels.size());
}

void write_png(const std::filesystem::path& path, const Image& image,
               const std::map<std::string, std::string>& text) {
    const std::vector<std::uint8_t> bytes = encode_png(image, text);
    AtomicFile file(path);
    file.write(std::as_bytes(std::span(bytes)));
    file.commit();
}

Image read_image(const std::filesystem::path& path, const DecodeOptions& options,
                 DecodeNotes* notes) {
    const std::string file = read_text(path);
    return decode_image(std::as_bytes(std::span(file)), path.string(), options, notes);
}

Image decode_image(std::span<const std::byte> file, const std::string& where,
                   const DecodeOptions& options, DecodeNotes* notes) {
    DecodeNotes ignored;
    return format_of(text_of_bytes(file), where)
        .decode(bytes_of(file), where, options, notes != nullptr ? *notes : ignored);
}

void check_image_header(std::span<const std::byte> file, std::uint64_t size,
                        const std::string& where, const DecodeOptions& options) {
    format_of(text_of_bytes(file), where).check(bytes_of(file), size, where, options);
}

void check_sides(std::uint64_t height, std::uint64_t width, const std::string& where,
                 const DecodeOptions& options) {
    if (height == 0 || width == 0) fail("{}: has no pixels ({} x {})", where, width, height);
    if (width > options.longest_side || height > options.longest_side)
        fail("{}: is {} x {} pixels; at most {} per side are read", where, width, height,
             options.longest_side);
}

Image flatten_alpha(int height, int width, int channels, std::vector<std::uint8_t> pixels,
                    const DecodeOptions& options, DecodeNotes& notes) {
    const Colour& ground = options.background;
    const bool grey = channels == 2, grey_ground = ground[0] == ground[1] && ground[1] == ground[2];
    const auto count = static_cast<std::size_t>(height) * static_cast<std::size_t>(width),
               stride = static_cast<std::size_t>(channels);
    const int out_channels = grey && grey_ground ? 1 : 3;
    Image image{height, width, out_channels, {}};
    const std::uint8_t* in = pixels.data();  // which stays there when the vector is moved
    if (grey && out_channels == 3) image.pixels.resize(3 * count);
    else image.pixels = std::move(pixels);  // pixels do not grow, so they are overwritten in place
    std::uint8_t* out = image.pixels.data();
    for (std::size_t i = 0; i < count; ++i, in += stride) {
        const unsigned alpha = in[stride - 1];
        notes.transparent |= alpha < 255;
        for (int c = 0; c < out_channels; ++c) {
            const unsigned own = in[grey ? 0 : c];
            *out++ = static_cast<std::uint8_t>(
                (own * alpha + ground[static_cast<std::size_t>(c)] * (255 - alpha) + 127) / 255);
        }
    }
    image.pixels.resize(static_cast<std::size_t>(out_channels) * count);
    return image;
}

std::map<std::string, std::string> read_png_text(const std::filesystem::path& path) {
    const std::string file = read_text(path);
    if (!file.starts_with(png_signature)) fail("{}: is not a PNG", path.string());
    return decode_png_text(bytes_of(file), path.string());
}

Image grid(const std::vector<Image>& images, int columns, int gap, int zoom) {
    if (images.empty() || columns < 1 || gap < 0 || zoom < 1)
        fail("a grid needs images, a column, no negative gap and a zoom of 1 or more");
    const Image& first = images.front();
    for (const Image& image : images) {
        if (image.height != first.height || image.width != first.width ||
            image.channels != first.channels) {
            fail("a grid needs images of one size; there are {} x {} and {} x {}", first.width,
                 first.height, image.width, image.height);
        }
    }
    const int count = static_cast<int>(images.size());
    const int shown_columns = std::min(columns, count);
    const int rows = (count + columns - 1) / columns;
    const int step_y = first.height * zoom + gap, step_x = first.width * zoom + gap;
    Image sheet{rows * step_y - gap, shown_columns * step_x - gap, first.channels, {}};
    sheet.pixels.assign(
        std::size_t(sheet.height) * std::size_t(sheet.width) * std::size_t(sheet.channels),
        mid_grey);
    for (int i = 0; i < count; ++i) {
        paste(images[static_cast<std::size_t>(i)], sheet, i / columns * step_y,
              i % columns * step_x, zoom);
    }
    return sheet;
}

}  // namespace atelier::core
