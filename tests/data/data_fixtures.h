#pragma once

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/safetensors.h"
#include "atelier/data/dataset.h"
#include "core/test_folder.h"

/// Shared fixtures of the data tests: files for temporary folders.
namespace atelier::data {

using core::TestFolder;

template <class Call>
std::string message_of(Call call) {
    try {
        call();
    } catch (const core::Error& error) {
        return error.what();
    }
    return "(nothing was thrown)";
}

inline bool holds(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

using Bytes = std::vector<std::uint8_t>;

inline Bytes big_endian(std::initializer_list<std::uint32_t> numbers) {
    Bytes bytes;
    for (const std::uint32_t n : numbers) {
        for (const int shift : {24, 16, 8, 0})
            bytes.push_back(static_cast<std::uint8_t>(n >> shift));
    }
    return bytes;
}

inline Bytes operator+(Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

inline Bytes random_bytes(std::size_t count, std::uint64_t seed = 0) {
    core::RandomStream stream(seed, "bytes");
    Bytes bytes(count);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(stream.below(256));
    return bytes;
}

inline void write_bytes(const std::filesystem::path& path, const Bytes& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

inline void write_gzip(const std::filesystem::path& path, const Bytes& bytes) {
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
}

inline void write_points(const std::filesystem::path& path, const std::vector<float>& positions,
                         const std::vector<std::int64_t>& labels = {}) {
    const auto count = static_cast<std::int64_t>(positions.size()) / 2;
    std::vector<core::TensorBytes> tensors{
        {"points", core::DType::F32, {count, 2}, std::as_bytes(std::span(positions))}};
    if (!labels.empty()) {
        tensors.push_back({"labels",
                           core::DType::I64,
                           {static_cast<std::int64_t>(labels.size())},
                           std::as_bytes(std::span(labels))});
    }
    core::write_safetensors(path, tensors);
}

inline std::vector<std::int64_t> all_of(const Dataset& dataset) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(dataset.size()));
    for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<std::int64_t>(i);
    return indices;
}

}  // namespace atelier::data
