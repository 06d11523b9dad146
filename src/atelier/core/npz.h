#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "atelier/core/npy_header.h"
#include "atelier/core/safetensors.h"

namespace atelier::core {

/// Writes arrays as an uncompressed numpy .npz, atomically; names without ".npy". Types F64, F32,
/// I64, I32, U8. Equal input gives equal bytes.
void write_npz(const std::filesystem::path& path, const std::vector<TensorBytes>& arrays);

struct Array {
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
};

/// Reads a .npz, compressed or not: numeric arrays in C order only, never pickled objects; at most
/// `largest` bytes in all.
std::map<std::string, Array> read_npz(const std::filesystem::path& path,
                                      std::size_t largest = std::size_t{1} << 32);

/// The arrays that are named in `requested` and exist. Other entries are not read, so they may be
/// of any type.
std::map<std::string, Array> read_npz(const std::filesystem::path& path,
                                      const std::set<std::string>& requested,
                                      std::size_t largest = std::size_t{1} << 32);

/// Type and shape of the array of that name, if there is one. Throws Error like read_npz, but reads
/// no elements.
std::optional<NpyHeader> header_in_npz(const std::filesystem::path& path, const std::string& name);

/// The names of a .npz's arrays.
std::set<std::string> names_in_npz(const std::filesystem::path& path);

}  // namespace atelier::core
