#include "atelier/core/tensorboard.h"

#include <array>
#include <bit>
#include <chrono>
#include <ctime>

#include "atelier/core/error.h"
#include "atelier/core/protobuf.h"

namespace atelier::core {

namespace {

// Field numbers are those of tensorflow/core/util/event.proto and framework/summary.proto.
ProtobufMessage begun_event() {
    const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
    return ProtobufMessage().real(1, now.count());
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t crc = i;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0U);
        table[i] = crc;
    }
    return table;
}

// TFRecord masks its checksums, because a checksum of data that contains its own checksum is weak.
std::uint32_t masked_crc(std::string_view bytes) {
    return std::rotr(crc32c(bytes), 15) + 0xa282ead8U;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
    static constexpr auto table = make_crc_table();
    std::uint32_t crc = ~0U;
    for (const char c : bytes) crc = table[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ crc >> 8;
    return ~crc;
}

TensorBoardFile::TensorBoardFile(const std::filesystem::path& folder, std::int64_t first_step) {
    std::error_code ignored;  // opening the file reports the same error with its name
    std::filesystem::create_directories(folder, ignored);
    const auto path =
        folder / fmt::format("events.out.tfevents.{}.atelier.{}", std::time(nullptr), first_step);
    out_.open(path, std::ios::binary | std::ios::app);
    if (!out_) fail("{}: cannot be written; is the folder writable?", path.string());
    record(begun_event().text(3, "brain.Event:2").bytes());
}

void TensorBoardFile::add(std::int64_t step,
                          const std::vector<std::pair<std::string, double>>& scalars) {
    ProtobufMessage summary;
    for (const auto& [tag, number] : scalars)
        summary.message(1, ProtobufMessage().text(1, tag).real(2, static_cast<float>(number)));
    record(begun_event().number(2, step).message(5, summary).bytes());
}

void TensorBoardFile::record(const std::string& bytes) {
    std::string length, out;
    append_raw(length, static_cast<std::uint64_t>(bytes.size()));
    out = length;
    append_raw(out, masked_crc(length));
    out += bytes;
    append_raw(out, masked_crc(bytes));
    out_ << out << std::flush;
}

}  // namespace atelier::core
