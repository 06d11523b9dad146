#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "atelier/core/image_file.h"

namespace atelier::core {

/// Decoders of whole files in memory; `where` begins the messages of their Errors.
Image decode_png(std::span<const std::uint8_t> file, const std::string& where,
                 const DecodeOptions& options, DecodeNotes& notes);
Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& where,
                  const DecodeOptions& options, DecodeNotes& notes);
Image decode_webp(std::span<const std::uint8_t> file, const std::string& where,
                  const DecodeOptions& options, DecodeNotes& notes);

/// Checks of the header alone: `file` may be a prefix of the `size` bytes.
void check_png_header(std::span<const std::uint8_t> file, std::uint64_t size,
                      const std::string& where, const DecodeOptions& options);
void check_jpeg_header(std::span<const std::uint8_t> file, std::uint64_t size,
                       const std::string& where, const DecodeOptions& options);
void check_webp_header(std::span<const std::uint8_t> file, std::uint64_t size,
                       const std::string& where, const DecodeOptions& options);

/// Throws Error when `height` or `width` exceeds `options.longest_side`, or is 0.
void check_sides(std::uint64_t height, std::uint64_t width, const std::string& where,
                 const DecodeOptions& options);

/// Blends pixels of 2 (grey, alpha) or 4 (RGB, alpha) channels with the background.
Image flatten_alpha(int height, int width, int channels, std::vector<std::uint8_t> pixels,
                    const DecodeOptions& options, DecodeNotes& notes);

std::map<std::string, std::string> decode_png_text(std::span<const std::uint8_t> file,
                                                   const std::string& where);

}  // namespace atelier::core
