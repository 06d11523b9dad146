#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "atelier/core/mapped_file.h"

namespace atelier::core {

/// Element types of the safetensors format that the project reads.
enum class DType { F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL };

std::size_t size_of(DType type);
std::string name_of(DType type);

using Shape = std::vector<std::int64_t>;

/// Size of a tensor in bytes; nothing when a dimension is negative or the product does not fit 63
/// bits.
std::optional<std::uint64_t> bytes_of(DType type, const Shape& shape);

/// "[32,4,3,3]"
std::string to_string(const Shape& shape);

/// A tensor in a file: `begin` and `end` are byte offsets after the header.
struct TensorEntry {
    DType dtype;
    Shape shape;
    std::uint64_t begin, end;
};

/// A safetensors file, mapped into memory and fully validated first: header length (at most 100 MB
/// and within the file), JSON depth and duplicate keys, types, shapes (no overflow), offsets (in
/// order, contiguous, exactly to the end of the file). Anything else is an Error that names the
/// file and the tensor. Tensors of unsupported types (8-bit floats, unsigned integers, complex
/// numbers) are validated like others and rejected only when they are requested.
class SafetensorsFile {
public:
    explicit SafetensorsFile(std::filesystem::path path);

    const std::filesystem::path& path() const { return file_.path(); }
    const std::map<std::string, TensorEntry>& entries() const { return entries_; }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    bool contains(const std::string& name) const { return entries_.contains(name); }
    /// Names and types of the tensors whose type is not supported.
    const std::map<std::string, std::string>& unsupported() const { return unsupported_; }

    /// Throws Error naming file and tensor when there is no such tensor or its type is not
    /// supported.
    const TensorEntry& entry(const std::string& name) const;
    std::span<const std::byte> bytes(const std::string& name) const;

    void release_pages() const { file_.release_pages(); }

private:
    MappedFile file_;
    std::map<std::string, TensorEntry> entries_;
    std::map<std::string, std::string> unsupported_, metadata_;
    std::size_t header_end_ = 0;
};

/// A tensor to be written: little-endian, C order, `bytes` as long as shape and type imply.
struct TensorBytes {
    std::string name;
    DType dtype;
    Shape shape;
    std::span<const std::byte> bytes;
};

/// Writes atomically, tensors in the order of their names, the data aligned to 8 bytes. Equal input
/// gives equal bytes.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorBytes> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace atelier::core
