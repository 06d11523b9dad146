#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace atelier::core {

/// Appends the bytes of a number, little-endian like all supported machines.
template <class Value>
void append_raw(std::string& out, Value value) {
    static_assert(std::endian::native == std::endian::little);
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out.append(bytes, sizeof value);
}

/// A protobuf message, written field by field (protobuf.dev/programming-guides/encoding).
/// Protobuf's own library would clash with the one inside LibTorch.
class ProtobufMessage {
public:
    ProtobufMessage& number(int field, std::int64_t value) {
        tag(field, Wire::varint);
        varint(static_cast<std::uint64_t>(value));
        return *this;
    }
    ProtobufMessage& real(int field, float value) { return raw(field, Wire::fixed32, value); }
    ProtobufMessage& real(int field, double value) { return raw(field, Wire::fixed64, value); }
    /// Text, bytes or another message's bytes.
    ProtobufMessage& text(int field, std::string_view bytes) {
        tag(field, Wire::bytes);
        varint(bytes.size());
        bytes_ += bytes;
        return *this;
    }
    ProtobufMessage& message(int field, const ProtobufMessage& value) {
        return text(field, value.bytes_);
    }

    const std::string& bytes() const { return bytes_; }

private:
    enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

    void varint(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
        bytes_ += static_cast<char>(value);
    }
    void tag(int field, Wire type) {
        varint(static_cast<std::uint64_t>(field << 3 | static_cast<int>(type)));
    }

    template <class Value>
    ProtobufMessage& raw(int field, Wire type, Value value) {
        tag(field, type);
        append_raw(bytes_, value);
        return *this;
    }

    std::string bytes_;
};

}  // namespace atelier::core
