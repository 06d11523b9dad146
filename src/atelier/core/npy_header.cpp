#include "atelier/core/npy_header.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

#include "atelier/core/error.h"

namespace atelier::core {

namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t npy_alignment = 64;
constexpr std::size_t longest_npy_header = 65536;

struct Descriptor {
    std::string_view text;
    DType type;
};

constexpr std::array<Descriptor, 9> descriptors{{{"<f8", DType::F64},
                                                 {"<f4", DType::F32},
                                                 {"<f2", DType::F16},
                                                 {"<i8", DType::I64},
                                                 {"<i4", DType::I32},
                                                 {"<i2", DType::I16},
                                                 {"|i1", DType::I8},
                                                 {"|u1", DType::U8},
                                                 {"|b1", DType::BOOL}}};

// Parses only the Python literal that numpy writes.
class LiteralParser {
public:
    LiteralParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

    NpyHeader header() {
        std::optional<DType> dtype;
        std::optional<Shape> shape;
        std::optional<bool> fortran;
        expect('{');
        while (!take('}')) {
            const std::string_view key = string();
            expect(':');
            if (key == "descr") dtype = descriptor();
            else if (key == "shape") shape = tuple();
            else if (key == "fortran_order") fortran = boolean();
            else broken();
            if (!take(',') && peek() != '}') broken();
        }
        if (peek() != '\0' || !dtype || !shape || !fortran) broken();
        if (*fortran) fail("{}: is in Fortran order; save it with numpy.ascontiguousarray", where_);
        return {*dtype, *shape};
    }

private:
    [[noreturn]] void broken() const { fail("{}: has a header that is not numpy's", where_); }

    // The next non-space character, '\0' at the end.
    char peek() {
        while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n')) text_.remove_prefix(1);
        return text_.empty() ? '\0' : text_[0];
    }

    bool take(char c) {
        if (peek() != c) return false;
        text_.remove_prefix(1);
        return true;
    }

    void expect(char c) {
        if (!take(c)) broken();
    }

    std::string_view string() {
        const char quote = peek();
        if (quote != '\'' && quote != '"') broken();
        const std::size_t end = text_.find(quote, 1);
        if (end == std::string_view::npos) broken();
        const std::string_view found = text_.substr(1, end - 1);
        text_.remove_prefix(end + 1);
        return found;
    }

    bool boolean() {
        const bool value = peek() == 'T';
        const std::string_view word = value ? "True" : "False";
        if (!text_.starts_with(word)) broken();
        text_.remove_prefix(word.size());
        return value;
    }

    Shape tuple() {
        Shape shape;
        expect('(');
        while (!take(')')) {
            peek();
            std::int64_t length = 0;
            const auto [end, problem] =
                std::from_chars(text_.data(), text_.data() + text_.size(), length);
            if (problem != std::errc() || length < 0) broken();
            text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
            shape.push_back(length);
            if (!take(',') && peek() != ')') broken();
        }
        return shape;
    }

    DType descriptor() {
        if (peek() == '[')
            fail("{}: is an array of records; save each field as an array of its own", where_);
        const std::string_view name = string();
        for (const auto& known : descriptors) {
            if (known.text == name) return known.type;
        }
        if (name.find('O') != std::string_view::npos)
            fail("{}: holds Python objects (a pickle), which are never read", where_);
        if (name.starts_with('>'))
            fail("{}: is big-endian; save it with .astype of a little-endian type", where_);
        fail(
            "{}: has type \"{}\", which is not read; save it as float32, float64, int64, int32 or "
            "uint8",
            where_, name);
    }

    std::string_view text_;
    const std::string& where_;
};

}  // namespace

std::string compose_npy_header(const NpyHeader& header, const std::string& where) {
    const auto* known = descriptors.begin();
    while (known != descriptors.end() && known->type != header.dtype) ++known;
    if (known == descriptors.end())
        fail("{}: numpy has no type {}; convert it to F32", where, name_of(header.dtype));
    const std::string lengths =
        fmt::format("{}{}", fmt::join(header.shape, ", "), header.shape.size() == 1 ? "," : "");
    std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
                                   known->text, lengths);
    const std::size_t before = magic.size() + 4;  // two bytes of version, two of length
    text.append(npy_alignment - (before + text.size() + 1) % npy_alignment, ' ');
    text += '\n';
    const auto length = static_cast<std::uint16_t>(text.size());
    std::string out(magic);
    out += {'\x01', '\x00', static_cast<char>(length & 0xff), static_cast<char>(length >> 8)};
    return out + text;
}

NpyHeaderRange npy_header_range(std::span<const std::byte> prefix, const std::string& where) {
    const std::string_view text(reinterpret_cast<const char*>(prefix.data()), prefix.size());
    if (text.size() < npy_prefix || !text.starts_with(magic))
        fail("{}: is not in numpy's .npy format", where);
    const int version = static_cast<unsigned char>(text[6]);
    if (version < 1 || version > 3) fail("{}: is .npy version {}; 1 to 3 are read", where, version);
    const std::size_t begin = version == 1 ? 10 : 12;  // later versions have a longer length field
    std::size_t length = 0;
    for (std::size_t i = begin; i > 8; --i)
        length = length << 8 | std::to_integer<std::size_t>(prefix[i - 1]);
    if (length > longest_npy_header)
        fail("{}: has a header of {} bytes; at most {} are read", where, length,
             longest_npy_header);
    return {begin, begin + length};
}

NpyHeader parse_npy_header(const std::string& text, const std::string& where) {
    return LiteralParser(text, where).header();
}

}  // namespace atelier::core
