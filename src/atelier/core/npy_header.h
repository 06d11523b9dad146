#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "atelier/core/safetensors.h"

namespace atelier::core {

/// What stands before the numbers of a .npy file (numpy.lib.format).
struct NpyHeader {
    DType dtype;
    Shape shape;
};

/// Version 1.0, padded so that the numbers begin at a multiple of 64. Throws Error for a type numpy lacks.
std::string compose_npy_header(const NpyHeader& header, const std::string& where);

/// Bytes at the beginning of a .npy file that tell how long its header is; enough for each version.
inline constexpr std::size_t npy_prefix = 12;

/// Where the header's text begins and ends, from the file's first `npy_prefix` bytes.
struct NpyHeaderPlace {
    std::size_t begin, end;
};
NpyHeaderPlace npy_header_place(std::span<const std::byte> prefix, const std::string& where);

/// Reads the header's text, `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`. Refuses objects (pickles), other
/// byte orders, Fortran order and structured types with an Error.
NpyHeader parse_npy_header(const std::string& text, const std::string& where);

}  // namespace atelier::core
