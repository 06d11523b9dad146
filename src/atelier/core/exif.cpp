#include "atelier/core/exif.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace atelier::core {

namespace {

constexpr std::uint32_t orientation_tag = 0x0112, short_type = 3;

/// Integers of a TIFF, in its byte order.
class TiffReader {
public:
    explicit TiffReader(std::span<const std::uint8_t> bytes)
        : bytes_(bytes), little_(!bytes.empty() && bytes[0] == 'I') {}

    bool has(std::size_t offset, std::size_t size) const {
        return offset <= bytes_.size() && size <= bytes_.size() - offset;
    }

    std::uint32_t at(std::size_t offset, std::size_t size) const {
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < size; ++i)
            value = value << 8 | bytes_[offset + (little_ ? size - 1 - i : i)];
        return value;
    }

private:
    std::span<const std::uint8_t> bytes_;
    bool little_;
};

}  // namespace

int exif_orientation(std::span<const std::uint8_t> exif) {
    const auto begins = [&](std::string_view text) {
        return exif.size() >= text.size() && std::equal(text.begin(), text.end(), exif.begin());
    };
    constexpr std::string_view mark("Exif\0\0", 6);
    if (begins(mark)) exif = exif.subspan(mark.size());
    if (!begins(std::string_view("II*\0", 4)) && !begins(std::string_view("MM\0*", 4))) return 1;
    const TiffReader tiff(exif);
    if (!tiff.has(4, 4)) return 1;
    const std::size_t directory = tiff.at(4, 4);
    if (!tiff.has(directory, 2)) return 1;
    const std::size_t count = tiff.at(directory, 2);
    for (std::size_t i = 0; i < count && tiff.has(directory + 2 + 12 * i, 12); ++i) {
        const std::size_t entry = directory + 2 + 12 * i;
        if (tiff.at(entry, 2) != orientation_tag) continue;
        const std::uint32_t value = tiff.at(entry + 8, tiff.at(entry + 2, 2) == short_type ? 2 : 4);
        return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return 1;
}

Image apply_orientation(Image image, int orientation) {
    if (orientation <= 1 || orientation > 8) return image;
    const bool swaps = orientation >= 5;  // rows and columns are swapped
    const bool from_right =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_below =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    Image rotated{swaps ? image.width : image.height, swaps ? image.height : image.width,
                  image.channels, std::vector<std::uint8_t>(image.pixels.size())};
    const auto channels = static_cast<std::size_t>(image.channels);
    std::uint8_t* out = rotated.pixels.data();
    for (int y = 0; y < rotated.height; ++y) {
        for (int x = 0; x < rotated.width; ++x) {
            int from_x = swaps ? y : x, from_y = swaps ? x : y;
            if (from_right) from_x = image.width - 1 - from_x;
            if (from_below) from_y = image.height - 1 - from_y;
            const std::size_t offset =
                (static_cast<std::size_t>(from_y) * static_cast<std::size_t>(image.width) +
                 static_cast<std::size_t>(from_x)) *
                channels;
            out = std::copy_n(image.pixels.data() + offset, channels, out);
        }
    }
    return rotated;
}

}  // namespace atelier::core
