#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "atelier/core/safetensors.h"

namespace atelier::core {

/// The header of a .npy file (numpy.lib.format).
struct NpyHeader {
    DType dtype;
    Shape shape;
};

/// Version 1.0, padded so that the elements begin at a multiple of 64 bytes. Throws Error for a
/// type that numpy lacks.
std::string compose_npy_header(const NpyHeader& header, const std::string& where);

/// Size of the prefix of a .npy file that gives the header's length, enough for each version.
inline constexpr std::size_t npy_prefix = 12;

/// Byte range of the header's text, from the file's first `npy_prefix` bytes. Throws Error when
/// they are not a .npy file's.
struct NpyHeaderRange {
    std::size_t begin, end;
};
NpyHeaderRange npy_header_range(std::span<const std::byte> prefix, const std::string& where);

/// Parses the header's text, `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`. Throws
/// Error for objects (pickles), other byte orders, Fortran order and structured types.
NpyHeader parse_npy_header(const std::string& text, const std::string& where);

}  // namespace atelier::core
