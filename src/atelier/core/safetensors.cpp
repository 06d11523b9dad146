#include "atelier/core/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"

namespace atelier::core {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

namespace {

constexpr std::uint64_t longest_header = 100'000'000;
constexpr std::uint64_t length_size = 8;  // the length of the header, a u64 before it
constexpr std::uint64_t alignment = 8;
constexpr std::string_view metadata_key = "__metadata__";

struct DTypeFacts {
    DType type;
    std::string_view name;
    std::size_t size;
};

constexpr std::array<DTypeFacts, 10> dtypes{{{DType::F64, "F64", 8},
                                             {DType::F32, "F32", 4},
                                             {DType::F16, "F16", 2},
                                             {DType::BF16, "BF16", 2},
                                             {DType::I64, "I64", 8},
                                             {DType::I32, "I32", 4},
                                             {DType::I16, "I16", 2},
                                             {DType::I8, "I8", 1},
                                             {DType::U8, "U8", 1},
                                             {DType::BOOL, "BOOL", 1}}};

/// Types of the format that are not supported, and their sizes in bits.
constexpr std::array<std::pair<std::string_view, std::uint64_t>, 12> unsupported_types{
    {{"F4", 4},
     {"F6_E2M3", 6},
     {"F6_E3M2", 6},
     {"F8_E4M3", 8},
     {"F8_E5M2", 8},
     {"F8_E8M0", 8},
     {"F8_E4M3FNUZ", 8},
     {"F8_E5M2FNUZ", 8},
     {"U16", 16},
     {"U32", 32},
     {"U64", 64},
     {"C64", 64}}};

const DTypeFacts& facts(DType type) { return *std::ranges::find(dtypes, type, &DTypeFacts::type); }

// The text of the header, once its length has been checked against the file's.
std::string_view read_header(std::span<const std::byte> file, const std::string& where) {
    if (file.size() < length_size)
        fail("{}: is {} bytes long, too short for a safetensors file", where, file.size());
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), length_size);
    if (length > longest_header) {
        fail("{}: its header claims {} bytes, more than {}; is it a safetensors file?", where,
             length, longest_header);
    }
    if (length > file.size() - length_size) {
        fail("{}: its header claims {} bytes, the file has {}; was it cut off?", where, length,
             file.size());
    }
    const std::string_view header(reinterpret_cast<const char*>(file.data()) + length_size,
                                  static_cast<std::size_t>(length));
    if (!header.starts_with('{'))
        fail("{}: its header does not begin with '{{'; is it a safetensors file?", where);
    return header;
}

std::map<std::string, std::string> parse_metadata(const json& value, const std::string& where) {
    if (value.is_null()) return {};  // as in the reference reader
    if (!value.is_object()) fail("{}: {} must be an object of texts", where, metadata_key);
    std::map<std::string, std::string> metadata;
    for (const auto& [key, text] : value.items()) {
        if (!text.is_string())
            fail("{}: {}: \"{}\" must be text, not {}", where, metadata_key, key, text.type_name());
        metadata[key] = text.get<std::string>();
    }
    return metadata;
}

// Prefix of a tensor's messages. Names come from outside and may be as long as the header.
std::string tensor_context(const std::string& where, const std::string& name) {
    return fmt::format("{}: tensor \"{}\"", where, name.substr(0, 200));
}

/// A tensor of the header, of a supported or an unsupported type.
struct HeaderEntry {
    std::string type;
    Shape shape;
    std::uint64_t begin, end;

    std::optional<DType> known() const {
        const auto* found = std::ranges::find(dtypes, type, &DTypeFacts::name);
        return found == dtypes.end() ? std::nullopt : std::optional(found->type);
    }
};

HeaderEntry parse_entry(const json& value, const std::string& where) {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    const JsonObject object(value, where);
    HeaderEntry entry{object.text("dtype"), object.integers("shape", 0, most), 0, 0};
    const auto offsets = object.integers("data_offsets", 0, most);
    if (offsets.size() != 2)
        fail("{}: \"data_offsets\" must be two numbers, not {}", where, offsets.size());
    if (offsets[0] > offsets[1])
        fail("{}: begins at {}, after its end at {}", where, offsets[0], offsets[1]);
    entry.begin = static_cast<std::uint64_t>(offsets[0]);
    entry.end = static_cast<std::uint64_t>(offsets[1]);
    return entry;
}

/// Size in bytes of a tensor whose elements may be smaller than a byte.
std::optional<std::uint64_t> bytes_of_bits(std::uint64_t bits, const Shape& shape) {
    const auto elements = bytes_of(DType::U8, shape);
    if (!elements || (*elements > 0 && bits > std::numeric_limits<std::int64_t>::max() / *elements))
        return std::nullopt;
    return *elements * bits % 8 == 0 ? std::optional(*elements * bits / 8) : std::nullopt;
}

void check_size(const HeaderEntry& entry, const std::string& where) {
    std::optional<std::uint64_t> size;
    if (const auto known = entry.known()) {
        size = bytes_of(*known, entry.shape);
    } else {
        const auto* unsupported = std::ranges::find(
            unsupported_types, entry.type, &std::pair<std::string_view, std::uint64_t>::first);
        if (unsupported == unsupported_types.end())
            fail("{}: has an unknown type \"{}\"", where, entry.type.substr(0, 40));
        size = bytes_of_bits(unsupported->second, entry.shape);
    }
    if (!size) fail("{}: its shape {} is too large", where, to_string(entry.shape));
    if (*size != entry.end - entry.begin) {
        fail("{}: is {} {}, {} bytes, but its offsets span {}", where, entry.type,
             to_string(entry.shape), *size, entry.end - entry.begin);
    }
}

// Tensors must tile the data: a gap could hide bytes, an overlap would alias two tensors.
void check_layout(const std::map<std::string, HeaderEntry>& entries, std::uint64_t data_size,
                  const std::string& where) {
    std::vector<const std::pair<const std::string, HeaderEntry>*> order;
    for (const auto& entry : entries) order.push_back(&entry);
    std::ranges::sort(order, {}, [](const auto* entry) {
        return std::pair(entry->second.begin, entry->second.end);
    });
    std::uint64_t expected = 0;
    for (const auto* entry : order) {
        if (entry->second.begin != expected) {
            fail("{}: begins at byte {} of the data, expected {}: {}",
                 tensor_context(where, entry->first), entry->second.begin, expected,
                 entry->second.begin < expected ? "it overlaps another"
                                                : "there is a hole before it");
        }
        expected = entry->second.end;
    }
    if (expected != data_size) {
        fail("{}: its tensors end at byte {} of the data, the file at {}; was it cut off?", where,
             expected, data_size);
    }
}

std::string quoted(const std::string& text, const std::string& where) {
    try {
        return json(text).dump();
    } catch (const json::exception&) {
        fail("{}: a name or a metadata text is not UTF-8", where);
    }
}

void check_writable(const std::vector<TensorBytes>& sorted, const std::string& where) {
    for (std::size_t i = 0; i < sorted.size(); ++i) {
        const auto& tensor = sorted[i];
        if (tensor.name == metadata_key)
            fail("{}: no tensor may be called \"{}\"", where, metadata_key);
        if (i > 0 && sorted[i - 1].name == tensor.name)
            fail("{}: is given twice", tensor_context(where, tensor.name));
        if (bytes_of(tensor.dtype, tensor.shape) != tensor.bytes.size()) {
            fail("{}: is {} {} but has {} bytes", tensor_context(where, tensor.name),
                 name_of(tensor.dtype), to_string(tensor.shape), tensor.bytes.size());
        }
    }
}

std::string compose_header(const std::vector<TensorBytes>& sorted,
                           const std::map<std::string, std::string>& metadata,
                           const std::string& where) {
    std::vector<std::string> members;
    if (!metadata.empty()) {
        std::vector<std::string> texts;
        for (const auto& [key, text] : metadata)
            texts.push_back(quoted(key, where) + ":" + quoted(text, where));
        members.push_back(fmt::format("\"{}\":{{{}}}", metadata_key, fmt::join(texts, ",")));
    }
    std::uint64_t begin = 0;
    for (const auto& tensor : sorted) {
        const std::uint64_t end = begin + tensor.bytes.size();
        members.push_back(
            fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
                        quoted(tensor.name, where), name_of(tensor.dtype), to_string(tensor.shape),
                        begin, end));
        begin = end;
    }
    std::string header = fmt::format("{{{}}}", fmt::join(members, ","));
    header.append((alignment - header.size() % alignment) % alignment, ' ');
    return header;
}

}  // namespace

std::size_t size_of(DType type) { return facts(type).size; }

std::string name_of(DType type) { return std::string(facts(type).name); }

std::optional<std::uint64_t> bytes_of(DType type, const Shape& shape) {
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    std::uint64_t bytes = size_of(type);
    for (const std::int64_t length : shape) {
        if (length < 0) return std::nullopt;
        if (length > 0 && bytes > most / static_cast<std::uint64_t>(length)) return std::nullopt;
        bytes *= static_cast<std::uint64_t>(length);
    }
    return bytes;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

SafetensorsFile::SafetensorsFile(std::filesystem::path path) : file_(std::move(path)) {
    const std::string where = file_.path().string();
    const std::string_view header = read_header(file_.bytes(), where);
    header_end_ = length_size + header.size();
    const json parsed = parse_json(header, where + ": header");
    std::map<std::string, HeaderEntry> all;
    for (const auto& [name, value] : parsed.items()) {
        if (name == metadata_key) {
            metadata_ = parse_metadata(value, where);
            continue;
        }
        const std::string context = tensor_context(where, name);
        check_size(all.emplace(name, parse_entry(value, context)).first->second, context);
    }
    check_layout(all, file_.bytes().size() - header_end_, where);
    for (auto& [name, entry] : all) {
        if (const auto type = entry.known())
            entries_.emplace(name,
                             TensorEntry{*type, std::move(entry.shape), entry.begin, entry.end});
        else unsupported_.emplace(name, entry.type);
    }
}

const TensorEntry& SafetensorsFile::entry(const std::string& name) const {
    const auto found = entries_.find(name);
    if (const auto type = unsupported_.find(name); type != unsupported_.end()) {
        fail(
            "{}: is of type {}; atelier reads floats of 16, 32 and 64 bits, signed integers and "
            "bytes",
            tensor_context(path().string(), name), type->second);
    }
    if (found == entries_.end())
        fail("{}: is not in the file", tensor_context(path().string(), name));
    return found->second;
}

std::span<const std::byte> SafetensorsFile::bytes(const std::string& name) const {
    const TensorEntry& tensor = entry(name);
    return file_.bytes().subspan(header_end_ + static_cast<std::size_t>(tensor.begin),
                                 static_cast<std::size_t>(tensor.end - tensor.begin));
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorBytes> tensors,
                       const std::map<std::string, std::string>& metadata) {
    const std::string where = path.string();
    std::ranges::sort(tensors, {}, &TensorBytes::name);
    check_writable(tensors, where);
    const std::string header = compose_header(tensors, metadata, where);
    const std::uint64_t length = header.size();
    AtomicFile file(path);
    file.write(std::as_bytes(std::span(&length, 1)));
    file.write(header);
    for (const auto& tensor : tensors) file.write(tensor.bytes);
    file.commit();
}

}  // namespace atelier::core
