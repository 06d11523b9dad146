#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace atelier::core {

/// An IDX file (the format of MNIST), gzip or plain. The header is checked before anything is
/// allocated from it.
class IdxFile {
public:
    /// `images` are uint8 [N,H,W] (magic 0x803), `labels` uint8 [N] (magic 0x801).
    enum class Content { images, labels };

    /// Reads the header. Throws Error naming the file when it is not such a file, has sides over
    /// 4096 pixels, or declares more data than a file of its size can hold.
    IdxFile(const std::filesystem::path& path, Content content);
    ~IdxFile();
    IdxFile(const IdxFile&) = delete;
    IdxFile& operator=(const IdxFile&) = delete;

    std::int64_t count() const { return count_; }
    std::int64_t rows() const { return rows_; }        // 1 for labels
    std::int64_t columns() const { return columns_; }  // 1 for labels

    /// All values, in order: `out` has count x rows x columns bytes. Throws Error naming the file
    /// when it is damaged, or longer or shorter than its header says.
    void read(std::span<std::uint8_t> out);

private:
    struct Unpacked;
    std::unique_ptr<Unpacked> file_;
    std::int64_t count_ = 0, rows_ = 1, columns_ = 1;
};

}  // namespace atelier::core
