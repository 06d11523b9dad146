#include "atelier/conditions/embeddings.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "atelier/core/error.h"
#include "atelier/core/npy_file.h"

namespace atelier::conditions {

namespace {

constexpr const char* tensor_name = "embeddings";
constexpr std::int64_t longest = 1 << 16;  // elements per row

template <class T>
T at(std::span<const std::byte> bytes, std::size_t index) {
    T value;
    std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
    return value;
}

/// IEEE 754's binary16.
double half(std::uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) magnitude = fraction == 0 ? HUGE_VAL : std::nan("");
    return bits >> 15 ? -magnitude : magnitude;
}

}  // namespace

Embeddings::Embeddings(const std::filesystem::path& path) : where_(path.string()) {
    core::Shape shape;
    if (path.extension() == ".npy") {
        const auto file = std::make_shared<core::NpyFile>(path);
        bytes_ = file->bytes();
        dtype_ = file->dtype();
        shape = file->shape();
        file_ = file;
    } else {
        const auto file = std::make_shared<core::SafetensorsFile>(path);
        const core::TensorEntry& entry = file->entry(tensor_name);
        bytes_ = file->bytes(tensor_name);
        dtype_ = entry.dtype;
        shape = entry.shape;
        file_ = file;
    }
    if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || shape[1] > longest) {
        core::fail("{}: has shape {}; embeddings are [N,D], one row per prompt, D at most {}",
                   where_, core::to_string(shape), longest);
    }
    using core::DType;
    if (dtype_ != DType::F64 && dtype_ != DType::F32 && dtype_ != DType::F16 &&
        dtype_ != DType::BF16) {
        core::fail(
            "{}: is of type {}; embeddings are floating-point numbers, e.g. .astype(numpy.float32)",
            where_, core::name_of(dtype_));
    }
    rows_ = shape[0];
    length_ = static_cast<std::size_t>(shape[1]);
}

double Embeddings::element(std::size_t index) const {
    switch (dtype_) {
        case core::DType::F64:
            return at<double>(bytes_, index);
        case core::DType::F16:
            return half(at<std::uint16_t>(bytes_, index));
        case core::DType::BF16:
            return std::bit_cast<float>(std::uint32_t{at<std::uint16_t>(bytes_, index)} << 16);
        case core::DType::F32:
            return at<float>(bytes_, index);
        case core::DType::I64:
        case core::DType::I32:
        case core::DType::I16:
        case core::DType::I8:
        case core::DType::U8:
        case core::DType::BOOL:
            break;  // refused by the constructor
    }
    core::fail("{}: is of type {}, no floating-point number", where_, core::name_of(dtype_));
}

void Embeddings::unit_row(std::int64_t row, std::span<float> out) const {
    const std::size_t begin = static_cast<std::size_t>(row) * length_;
    double squares = 0;
    for (std::size_t i = 0; i < length_; ++i) {
        const double x = element(begin + i);
        squares += x * x;
    }
    // Values whose squares overflow or underflow in double are not embeddings; they are rejected
    // like zeros.
    if (!std::isfinite(squares) || squares == 0)
        core::fail("{}: row {} is zero or not finite, so it has no direction", where_, row);
    const double scale = 1 / std::sqrt(squares);
    for (std::size_t i = 0; i < length_; ++i)
        out[i] = static_cast<float>(element(begin + i) * scale);
}

}  // namespace atelier::conditions
