#include "fuzz/targets.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/core/error.h"
#include "atelier/core/idx_file.h"
#include "atelier/core/image_codecs.h"
#include "atelier/core/json_file.h"
#include "atelier/core/npy_file.h"
#include "atelier/core/npz.h"
#include "atelier/core/pickle.h"
#include "atelier/core/safetensors.h"
#include "atelier/core/schema.h"
#include "atelier/core/tar_file.h"
#include "atelier/core/zip_file.h"
#include "atelier/data/caption_metadata.h"
#include "atelier/data/prompt_file.h"
#include "atelier/server/api_keys.h"

namespace atelier::fuzz {

namespace {

constexpr std::uint64_t constant_memory = 2 << 20;  // tables of libraries
constexpr std::uint64_t largest_entry = 1 << 20;    // of an archive entry, which is unpacked here
constexpr std::uint64_t deflate_ratio = 1032;       // maximum ratio of deflate

std::string_view text_of(Bytes file) {
    return {reinterpret_cast<const char*>(file.data()), file.size()};
}

std::uint64_t nothing_claimed(Bytes) { return 0; }
std::uint64_t unpacked_at_most(Bytes file) { return deflate_ratio * file.size(); }

std::uint64_t big_endian(Bytes file, std::size_t at, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = at; i < at + count && i < file.size(); ++i) value = value << 8 | file[i];
    return value;
}

// Pixels as three bytes, decompressed rows, transparency, and the rotated copy.
constexpr std::uint64_t bytes_per_pixel = 16;

std::uint64_t png_claims(Bytes file) {
    const std::uint64_t pixels = big_endian(file, 16, 4) * big_endian(file, 20, 4);
    return bytes_per_pixel * std::min<std::uint64_t>(pixels, 8 * unpacked_at_most(file));
}

std::uint64_t jpeg_claims(Bytes file) {
    std::uint64_t most = 0;  // of all frame headers
    for (std::size_t i = 0; i + 9 < file.size(); ++i) {
        if (file[i] != 0xff || file[i + 1] < 0xc0 || file[i + 1] > 0xcf) continue;
        most = std::max(most, big_endian(file, i + 5, 2) * big_endian(file, i + 7, 2));
    }
    return bytes_per_pixel * most;
}

void read_png(Bytes file) {
    core::DecodeNotes notes;
    core::check_png_header(file, file.size(), "x.png", {});
    core::decode_png(file, "x.png", {}, notes);
    core::decode_png_text(file, "x.png");
}

void read_jpeg(Bytes file) {
    core::DecodeNotes notes;
    core::check_jpeg_header(file, file.size(), "x.jpg", {});
    core::decode_jpeg(file, "x.jpg", {}, notes);
}

/// The canvas of an extended file and its frames, anywhere in the file; and for lossless data the
/// tables that libwebp allocates before it reads the prefix codes they are for: up to a thousand
/// groups of codes whatever the image's size, and beyond that as many as the file has bits for.
std::uint64_t webp_claims(Bytes file) {
    const auto little = [&](std::size_t at, std::size_t count) {
        std::uint64_t value = 0;
        for (std::size_t i = at + count; i-- > at;)
            value = value << 8 | (i < file.size() ? file[i] : 0);
        return value;
    };
    constexpr std::uint64_t group_bytes = 21'000, group_bits = 20;  // at most, at least
    std::uint64_t most = 0, tables = 0;
    for (std::size_t i = 0; i + 18 < file.size(); ++i) {
        const std::string_view kind = text_of(file).substr(i, 4);
        if (kind == "VP8L" || kind == "ALPH")
            tables = group_bytes * std::max<std::uint64_t>(1000, 8 * file.size() / group_bits);
        if (kind == "VP8X")
            most = std::max(most, (little(i + 12, 3) + 1) * (little(i + 15, 3) + 1));
        if (kind == "VP8 ")
            most = std::max(most, (little(i + 14, 2) & 0x3fff) * (little(i + 16, 2) & 0x3fff));
        if (kind == "VP8L")
            most = std::max(
                most, ((little(i + 9, 4) & 0x3fff) + 1) * ((little(i + 9, 4) >> 14 & 0x3fff) + 1));
    }
    return bytes_per_pixel * most + tables;
}

void read_webp(Bytes file) {
    core::DecodeNotes notes;
    core::check_webp_header(file, file.size(), "x.webp", {});
    core::decode_webp(file, "x.webp", {}, notes);
}

void read_captions(Bytes file) {
    try {
        data::caption_lines_of_csv(text_of(file), "x.csv");
    } catch (const core::Error&) {  // may still be JSON
    }
    data::caption_in_json(text_of(file).substr(0, text_of(file).find('\n')), "x.json");
    data::caption_lines_of_json(text_of(file), "x.jsonl");
}

void read_zip(Bytes file) {
    const MemoryFile memory(file);
    const core::ZipFile zip(memory.path());
    for (const auto& entry : zip.entries()) {
        try {
            zip.read(entry, largest_entry);
        } catch (const core::Error&) {  // the next entry may be complete
        }
    }
}

void read_tar(Bytes file) {
    const MemoryFile memory(file);
    const core::TarFile tar(memory.path());
    std::uint64_t sum = 0;
    for (const auto& entry : tar.entries()) {
        for (const std::byte byte : entry.bytes) sum += static_cast<unsigned char>(byte);
    }
    if (sum == ~std::uint64_t{0}) std::abort();  // the sum is used, so that all bytes are read
}

void read_npz(Bytes file) {
    const MemoryFile memory(file);
    core::read_npz(memory.path(), largest_entry);
}

void read_npy(Bytes file) {
    const MemoryFile memory(file);
    const core::NpyFile npy(memory.path());
    if (npy.bytes().size() != core::bytes_of(npy.dtype(), npy.shape())) std::abort();
}

void read_safetensors(Bytes file) {
    const MemoryFile memory(file);
    const core::SafetensorsFile tensors(memory.path());
    for (const auto& [name, entry] : tensors.entries()) {
        if (tensors.bytes(name).size() != entry.end - entry.begin) std::abort();
    }
}

void read_idx_as(const std::filesystem::path& path, core::IdxFile::Content content) {
    core::IdxFile idx(path, content);
    std::vector<std::uint8_t> values(
        static_cast<std::size_t>(idx.count() * idx.rows() * idx.columns()));
    idx.read(values);
}

void read_idx(Bytes file) {
    const MemoryFile memory(file);
    try {
        read_idx_as(memory.path(), core::IdxFile::Content::images);
    } catch (const core::Error&) {
        read_idx_as(memory.path(), core::IdxFile::Content::labels);
    }
}

void walk(const core::PickleValue& value, int depth, int& steps) {
    if (depth > 20 || ++steps > 10'000) return;
    if (value.is_list()) {
        for (const auto& item : value.items()) walk(item, depth + 1, steps);
    } else if (value.is_dict()) {
        for (const auto& [key, item] : value.entries()) {
            walk(key, depth + 1, steps);
            walk(item, depth + 1, steps);
        }
    } else if (value.is_call()) {
        walk(value.callee(), depth + 1, steps);
        for (const auto& item : value.arguments()) walk(item, depth + 1, steps);
        walk(value.state(), depth + 1, steps);
    }
}

void read_pickle(Bytes file) {
    const core::Pickle pickle(std::as_bytes(file), "x.pkl",
                              [](const std::string& global) { return global != "os.system"; });
    int steps = 0;
    walk(pickle.root(), 0, steps);
}

void read_toml(Bytes file) {
    std::int64_t whole = 0;
    double real = 0;
    std::optional<double> automatic;
    bool flag = false;
    std::string text, choice = "one";
    std::vector<std::int64_t> wholes;
    std::vector<double> reals;
    std::vector<std::string> texts;
    core::Schema schema;
    schema.number("whole", &whole, "", {.min = 0, .max = 100});
    schema.number("table.real", &real, "");
    schema.formerly("table.real", "table.old");
    schema.number_or_auto("table.automatic", &automatic, "");
    schema.flag("table.flag", &flag, "");
    schema.text("text", &text, "");
    schema.text("table.choice", &choice, "", {"one", "two"});
    schema.numbers("wholes", &wholes, "");
    schema.numbers("table.reals", &reals, "");
    schema.texts("texts", &texts, "");
    const MemoryFile memory(file), empty({});
    // The first line is also used as an override on the command line.
    try {
        schema.read(empty.path(), {std::string(text_of(file).substr(0, text_of(file).find('\n')))});
    } catch (const core::Error&) {  // the file may still be valid
    }
    schema.read(memory.path(), {});
}

void read_json(Bytes file) { core::parse_json(text_of(file), "x.json"); }

/// API keys, prompts, and CLIP words.
void read_text(Bytes file) {
    const MemoryFile memory(file);
    try {
        server::ApiKeys(memory.path()).accepts("key");
    } catch (const core::Error&) {  // may still hold prompts
    }
    data::PromptFile prompts(memory.path().string());
    for (std::string prompt; prompts.next(prompt);) conditions::clip_words(prompt);
}

constexpr Target all_targets[] = {
    {"png", read_png, png_claims},
    {"jpeg", read_jpeg, jpeg_claims},
    {"webp", read_webp, webp_claims},
    {"captions", read_captions, nothing_claimed},
    {"zip", read_zip, unpacked_at_most},
    {"tar", read_tar, nothing_claimed},
    {"npz", read_npz, unpacked_at_most},
    {"npy", read_npy, nothing_claimed},
    {"safetensors", read_safetensors, nothing_claimed},
    {"idx", read_idx, unpacked_at_most},
    {"pickle", read_pickle, nothing_claimed},
    {"toml", read_toml, nothing_claimed},
    {"json", read_json, nothing_claimed},
    {"text", read_text, nothing_claimed},
};

[[noreturn]] void fail_target(const Target& target, const std::string& what) {
    std::fprintf(stderr, "%s: %s\n", target.name, what.c_str());
    std::abort();
}

}  // namespace

std::span<const Target> targets() { return all_targets; }

const Target* find_target(std::string_view name) {
    for (const Target& target : all_targets) {
        if (name == target.name) return &target;
    }
    return nullptr;
}

void try_file(const Target& target, Bytes file) {
    const std::uint64_t allowed = 10 * file.size() + target.claimed(file) + constant_memory;
    const PeakMemory peak;
    try {
        target.read(file);
    } catch (const core::Error&) {  // the correct result for a bad file
    } catch (const std::exception& error) {
        fail_target(target, std::string("threw what is no core::Error: ") + error.what());
    }
    if (peak.bytes() > allowed) {
        fail_target(target, fmt::format("{} bytes held for a file of {}; {} are allowed",
                                        peak.bytes(), file.size(), allowed));
    }
}

MemoryFile::MemoryFile(Bytes bytes) : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (descriptor_ < 0) std::abort();
    while (!bytes.empty()) {
        const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
        if (written <= 0) std::abort();
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

std::filesystem::path MemoryFile::path() const {
    return fmt::format("/proc/self/fd/{}", descriptor_);
}

}  // namespace atelier::fuzz
