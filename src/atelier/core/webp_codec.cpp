#include <webp/encode.h>

#include "atelier/core/error.h"
#include "atelier/core/image_codecs.h"

namespace atelier::core {

namespace {

/// WebP knows no grey pictures.
std::vector<std::uint8_t> in_rgb(const Image& image) {
    if (image.channels == 3) return image.pixels;
    std::vector<std::uint8_t> rgb;
    for (const std::uint8_t grey : image.pixels) rgb.insert(rgb.end(), 3, grey);
    return rgb;
}

}  // namespace

std::vector<std::uint8_t> encode_webp(const Image& image, int quality) {
    check_image(image);
    const std::vector<std::uint8_t> rgb = in_rgb(image);
    std::uint8_t* bytes = nullptr;
    const std::size_t size = quality == 100 ? ::WebPEncodeLosslessRGB(rgb.data(), image.width, image.height, 3 * image.width, &bytes)
                                            : ::WebPEncodeRGB(rgb.data(), image.width, image.height, 3 * image.width, static_cast<float>(quality), &bytes);
    if (size == 0) fail("a WebP of {} x {} pixels cannot be written", image.width, image.height);
    std::vector<std::uint8_t> file(bytes, bytes + size);
    ::WebPFree(bytes);
    return file;
}

}  // namespace atelier::core
