#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "atelier/core/image_file.h"

namespace atelier::core {

/// Readers of whole files in memory; `where` begins the messages of their Errors.
Image decode_png(std::span<const std::uint8_t> file, const std::string& where, const Decoding& how,
                 DecodeNotes& notes);
Image decode_jpeg(std::span<const std::uint8_t> file, const std::string& where, const Decoding& how,
                  DecodeNotes& notes);
Image decode_webp(std::span<const std::uint8_t> file, const std::string& where, const Decoding& how,
                  DecodeNotes& notes);

/// What their headers show: `file` may lack the end of its `size` bytes.
void check_png_header(std::span<const std::uint8_t> file, std::uint64_t size,
                      const std::string& where, const Decoding& how);
void check_jpeg_header(std::span<const std::uint8_t> file, std::uint64_t size,
                       const std::string& where, const Decoding& how);
void check_webp_header(std::span<const std::uint8_t> file, std::uint64_t size,
                       const std::string& where, const Decoding& how);

/// Throws Error when `height` or `width` is more than is read.
void check_sides(std::uint64_t height, std::uint64_t width, const std::string& where,
                 const Decoding& how);

/// Pixels of 2 (grey, alpha) or 4 (RGB, alpha) channels on a background.
Image on_background(int height, int width, int channels, std::vector<std::uint8_t> pixels,
                    const Decoding& how, DecodeNotes& notes);

std::map<std::string, std::string> decode_png_text(std::span<const std::uint8_t> file, const std::string& where);

}  // namespace atelier::core
