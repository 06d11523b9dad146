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

/// 8-bit pixels, row by row, channels last; `channels` is 1 (grey) or 3 (RGB).
struct Image {
    int height = 0, width = 0, channels = 1;
    std::vector<std::uint8_t> pixels;
};

/// Red, green, blue.
using Colour = std::array<std::uint8_t, 3>;

inline constexpr Colour white{255, 255, 255};

/// Throws Error unless it has pixels, as many as its sides say, in 1 or 3 channels.
void check_image(const Image& image);

/// `quick` stores pixels of up to 2 KB as they are, which takes a third of the time: for those, starting the compressor costs more than all else, to save some hundred bytes.
enum class PngSize { quick, smallest };

/// A PNG in memory. Values of `text` are UTF-8 and become tEXt chunks where they are plain ASCII, iTXt chunks (UTF-8) elsewhere; U+2400 stands for NUL,
/// which no PNG may hold. Equal input gives equal bytes.
std::vector<std::uint8_t> encode_png(const Image& image, const std::map<std::string, std::string>& text = {}, PngSize size = PngSize::quick);

/// A JPEG in memory; `quality` from 0 to 100.
std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality);

/// A WebP in memory; `quality` from 0 to 100, where 100 loses nothing.
std::vector<std::uint8_t> encode_webp(const Image& image, int quality);

/// Writes a PNG atomically.
void write_png(const std::filesystem::path& path, const Image& image, const std::map<std::string, std::string>& text = {});

/// How images are decoded.
struct Decoding {
    std::uint32_t longest_side = 16384;  // longer ones are refused before any memory is taken
    Colour background = white;           // what shows through where an image is transparent
};

/// What was done to an image beyond decoding it.
struct DecodeNotes {
    bool transparent = false;   // the background shows through somewhere
    bool turned = false;        // it was stored lying or mirrored, as its EXIF orientation says
    bool four_colours = false;  // it was CMYK
};

/// Reads PNG, JPEG or WebP by content, whatever its name, as 8-bit grey or RGB: upright, on a
/// background, palettes expanded, 16 bits reduced, CMYK converted as Pillow does, of an animation
/// the first frame. Throws Error naming the file when it is broken, something else (saying what),
/// or too large.
Image read_image(const std::filesystem::path& path, const Decoding& how = {},
                 DecodeNotes* notes = nullptr);

/// The same of a file in memory; `where` begins the messages.
Image decode_image(std::span<const std::byte> file, const std::string& where,
                   const Decoding& how = {}, DecodeNotes* notes = nullptr);

/// Throws what decode_image would for what an image's header alone shows: something else, too
/// large, too short for its size. `file` may lack the end of its `size` bytes.
void check_image_header(std::span<const std::byte> file, std::uint64_t size,
                        const std::string& where, const Decoding& how = {});

/// The text of a PNG's tEXt and uncompressed iTXt chunks, as UTF-8.
std::map<std::string, std::string> read_png_text(const std::filesystem::path& path);

/// Images of equal size laid out in rows of `columns`, with `gap` pixels of mid-grey between them, each enlarged `zoom` times.
Image grid(const std::vector<Image>& images, int columns, int gap = 2, int zoom = 1);

}  // namespace atelier::core
