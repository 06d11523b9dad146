#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace atelier::core {

/// Appends scalar summaries to a TensorBoard event file (TFRecord framing with masked CRC-32C,
/// protobuf written by hand).
class TensorBoardFile {
public:
    /// Opens `folder`/events.out.tfevents.<now>.atelier.<first_step>, a new file for every start of
    /// a run.
    TensorBoardFile(const std::filesystem::path& folder, std::int64_t first_step);

    void add(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

private:
    void record(const std::string& bytes);
    std::ofstream out_;
};

/// CRC-32C (Castagnoli), for tests against published vectors.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace atelier::core
