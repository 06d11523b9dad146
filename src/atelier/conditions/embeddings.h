#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "atelier/core/safetensors.h"

namespace atelier::conditions {

/// Embeddings of prompts, from any encoder, in a memory-mapped file: a .npy array [N,D], or a
/// safetensors file with a tensor "embeddings" [N,D]; float64, float32, float16 or (safetensors)
/// bfloat16. Throws core::Error naming the file when it is anything else.
class Embeddings {
public:
    explicit Embeddings(const std::filesystem::path& path);

    std::int64_t rows() const { return rows_; }
    std::size_t length() const { return length_; }

    /// Writes row `row`, scaled to unit length, to `out` (length() elements). Throws core::Error
    /// naming file and row when the row is zero or has non-finite elements.
    void unit_row(std::int64_t row, std::span<float> out) const;

private:
    double element(std::size_t index) const;

    std::string where_;
    std::shared_ptr<const void> file_;  // keeps bytes_ mapped
    std::span<const std::byte> bytes_;
    core::DType dtype_ = core::DType::F32;
    std::int64_t rows_ = 0;
    std::size_t length_ = 0;
};

}  // namespace atelier::conditions
