#pragma once

#include <filesystem>
#include <span>

#include "atelier/core/mapped_file.h"
#include "atelier/core/npy_header.h"

namespace atelier::core {

/// A .npy file, mapped into memory and checked: elements in C order, exactly as many as the shape
/// says, never pickled objects. Throws Error naming the file.
class NpyFile {
public:
    explicit NpyFile(std::filesystem::path path);

    DType dtype() const { return header_.dtype; }
    const Shape& shape() const { return header_.shape; }
    std::span<const std::byte> bytes() const { return file_.bytes().subspan(begin_); }

private:
    MappedFile file_;
    NpyHeader header_;
    std::size_t begin_ = 0;
};

}  // namespace atelier::core
