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

/// Reads PNG or JPEG by content, converted to 8-bit grey or RGB (alpha dropped, palettes expanded, 16 bits reduced). Throws
/// Error naming the file when it is broken, neither, or larger than 16384 pixels a side.
Image read_image(const std::filesystem::path& path);

/// The same of a file in memory; `where` begins the messages, and sides longer than `longest_side` are refused before any memory is taken.
Image decode_image(std::span<const std::byte> file, const std::string& where, std::uint32_t longest_side);

/// The text of a PNG's tEXt and uncompressed iTXt chunks, as UTF-8.
std::map<std::string, std::string> read_png_text(const std::filesystem::path& path);

/// Images of equal size laid out in rows of `columns`, with `gap` pixels of mid-grey between them, each enlarged `zoom` times.
Image grid(const std::vector<Image>& images, int columns, int gap = 2, int zoom = 1);

}  // namespace atelier::core
