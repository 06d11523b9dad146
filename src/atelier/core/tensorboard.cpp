#include "atelier/core/tensorboard.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <ctime>

#include "atelier/core/error.h"

namespace atelier::core {

namespace {

// Wire types and field numbers of tensorflow/core/util/event.proto and framework/summary.proto.
enum WireType { varint_type = 0, fixed64_type = 1, bytes_type = 2, fixed32_type = 5 };

void put_varint(std::string& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
    out += static_cast<char>(value);
}

void put_tag(std::string& out, int field, WireType type) { put_varint(out, static_cast<std::uint64_t>(field << 3 | type)); }

// Little-endian, as all machines are that the project runs on.
template <class Value>
void put_raw(std::string& out, Value value) {
    static_assert(std::endian::native == std::endian::little);
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out.append(bytes, sizeof value);
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
    put_tag(out, field, bytes_type);
    put_varint(out, bytes.size());
    out += bytes;
}

std::string begin_event() {
    const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
    std::string event;
    put_tag(event, 1, fixed64_type);
    put_raw(event, now.count());
    return event;
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

// TFRecord masks its checksums, because a checksum of data that holds its own checksum is weak.
std::uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8U; }

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
    static constexpr auto table = make_crc_table();
    std::uint32_t crc = ~0U;
    for (const char c : bytes) crc = table[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ crc >> 8;
    return ~crc;
}

TensorBoardFile::TensorBoardFile(const std::filesystem::path& folder, std::int64_t first_step) {
    std::error_code ignored;  // opening the file says the same with its name
    std::filesystem::create_directories(folder, ignored);
    const auto path = folder / fmt::format("events.out.tfevents.{}.atelier.{}", std::time(nullptr), first_step);
    out_.open(path, std::ios::binary | std::ios::app);
    if (!out_) fail("{}: cannot be written; is the folder writable?", path.string());
    std::string event = begin_event();
    put_bytes(event, 3, "brain.Event:2");
    record(event);
}

void TensorBoardFile::add(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
    std::string summary;
    for (const auto& [tag, number] : scalars) {
        std::string value;
        put_bytes(value, 1, tag);
        put_tag(value, 2, fixed32_type);
        put_raw(value, static_cast<float>(number));
        put_bytes(summary, 1, value);
    }
    std::string event = begin_event();
    put_tag(event, 2, varint_type);
    put_varint(event, static_cast<std::uint64_t>(step));
    put_bytes(event, 5, summary);
    record(event);
}

void TensorBoardFile::record(const std::string& bytes) {
    std::string length, out;
    put_raw(length, static_cast<std::uint64_t>(bytes.size()));
    out = length;
    put_raw(out, masked_crc(length));
    out += bytes;
    put_raw(out, masked_crc(bytes));
    out_ << out << std::flush;
}

}  // namespace atelier::core
