#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace atelier::core {

/// 8-bit pixels [height,width,channels], row by row; `channels` is 1 (grey) or 3 (RGB).
struct Image {
    int height = 0, width = 0, channels = 1;
    std::vector<std::uint8_t> pixels;
};

/// Red, green, blue.
using Colour = std::array<std::uint8_t, 3>;

inline constexpr Colour white{255, 255, 255};

/// Throws Error unless the image has 1 or 3 channels and exactly height x width x channels > 0
/// bytes.
void check_image(const Image& image);

/// `quick` stores pixels of up to 2 KB uncompressed, which takes a third of the time: for those,
/// starting the compressor costs more than everything else and saves only some hundred bytes.
enum class PngSize { quick, smallest };

/// A PNG in memory. Values of `text` are UTF-8 and become tEXt chunks where they are plain ASCII,
/// iTXt chunks (UTF-8) otherwise; NUL, which PNG text may not contain, is replaced by U+2400. Equal
/// input gives equal bytes.
std::vector<std::uint8_t> encode_png(const Image& image,
                                     const std::map<std::string, std::string>& text = {},
                                     PngSize size = PngSize::quick);

/// A JPEG in memory; `quality` is 0 to 100.
std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality);

/// A WebP in memory; `quality` is 0 to 100, where 100 is lossless.
std::vector<std::uint8_t> encode_webp(const Image& image, int quality);

/// Writes a PNG atomically.
void write_png(const std::filesystem::path& path, const Image& image,
               const std::map<std::string, std::string>& text = {});

/// How images are decoded.
struct DecodeOptions {
    std::uint32_t longest_side = 16384;  // longer ones are rejected before any memory is allocated
    Colour background = white;           // behind transparent pixels
};

/// What decoding an image changed about it.
struct DecodeNotes {
    bool transparent = false;  // some pixel is not opaque
    bool rotated = false;      // rotated or mirrored according to its EXIF orientation
    bool cmyk = false;         // converted from CMYK
};

/// Reads PNG, JPEG or WebP, detected by content whatever the name, as 8-bit grey or RGB: upright,
/// blended with a background, palettes expanded, 16 bits reduced to 8, CMYK converted as Pillow
/// does, the first frame of an animation. Throws Error naming the file when it is broken, too
/// large, or something else (saying what).
Image read_image(const std::filesystem::path& path, const DecodeOptions& options = {},
                 DecodeNotes* notes = nullptr);

/// The same for a file in memory; `where` begins the messages.
Image decode_image(std::span<const std::byte> file, const std::string& where,
                   const DecodeOptions& options = {}, DecodeNotes* notes = nullptr);

/// Throws what decode_image would throw where the header alone shows it: something else, too large,
/// too short for its size. `file` may be a prefix of the `size` bytes.
void check_image_header(std::span<const std::byte> file, std::uint64_t size,
                        const std::string& where, const DecodeOptions& options = {});

/// The text of a PNG's tEXt and uncompressed iTXt chunks, as UTF-8.
std::map<std::string, std::string> read_png_text(const std::filesystem::path& path);

/// Images of equal size in rows of `columns`, with `gap` pixels of mid-grey between them, each
/// enlarged `zoom` times.
Image grid(const std::vector<Image>& images, int columns, int gap = 2, int zoom = 1);

}  // namespace atelier::core
