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

std::span<const std::uint8_t> bytes_of(const std::string& file) {
    return {reinterpret_cast<const std::uint8_t*>(file.data()), file.size()};
}

// Copies `image` into `sheet` with its corner at (top, left), every pixel `zoom` x `zoom` times.
void paste(const Image& image, Image& sheet, int top, int left, int zoom) {
    const auto channels = static_cast<std::size_t>(sheet.channels);
    for (int y = 0; y < image.height * zoom; ++y) {
        auto* out = sheet.pixels.data() + (std::size_t(top + y) * std::size_t(sheet.width) + std::size_t(left)) * channels;
        const auto* row = image.pixels.data() + std::size_t(y / zoom) * std::size_t(image.width) * channels;
        for (int x = 0; x < image.width * zoom; ++x) out = std::copy_n(row + std::size_t(x / zoom) * channels, channels, out);
    }
}

}  // namespace

void check_image(const Image& image) {
    const bool sides = image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3);
    if (sides && image.pixels.size() == std::size_t(image.height) * std::size_t(image.width) * std::size_t(image.channels))
        return;
    fail("an image of {} x {} pixels, {} channels and {} bytes cannot be written", image.width, image.height, image.channels,
         image.pixels.size());
}

void write_png(const std::filesystem::path& path, const Image& image, const std::map<std::string, std::string>& text) {
    const std::vector<std::uint8_t> bytes = encode_png(image, text);
    AtomicFile file(path);
    file.write(std::as_bytes(std::span(bytes)));
    file.commit();
}

Image read_image(const std::filesystem::path& path) {
    const std::string file = read_text(path);
    return decode_image(std::as_bytes(std::span(file)), path.string(), longest_side);
}

Image decode_image(std::span<const std::byte> file, const std::string& where, std::uint32_t longest) {
    const std::span bytes(reinterpret_cast<const std::uint8_t*>(file.data()), file.size());
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    if (text.starts_with(png_signature)) return decode_png(bytes, where, longest);
    if (text.starts_with(jpeg_signature)) return decode_jpeg(bytes, where, longest);
    fail("{}: is neither a PNG nor a JPEG", where);
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
        if (image.height != first.height || image.width != first.width || image.channels != first.channels) {
            fail("a grid needs images of one size; there are {} x {} and {} x {}", first.width, first.height, image.width,
                 image.height);
        }
    }
    const int count = static_cast<int>(images.size());
    const int shown_columns = std::min(columns, count);
    const int rows = (count + columns - 1) / columns;
    const int step_y = first.height * zoom + gap, step_x = first.width * zoom + gap;
    Image sheet{rows * step_y - gap, shown_columns * step_x - gap, first.channels, {}};
    sheet.pixels.assign(std::size_t(sheet.height) * std::size_t(sheet.width) * std::size_t(sheet.channels), mid_grey);
    for (int i = 0; i < count; ++i) {
        paste(images[static_cast<std::size_t>(i)], sheet, i / columns * step_y, i % columns * step_x, zoom);
    }
    return sheet;
}

}  // namespace atelier::core
