#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>
#include <vector>

/// Archives for tests, valid or broken.
namespace atelier::core {

struct ZipEntry {
    std::string name, bytes;
    bool deflated = false;
    std::uint32_t claimed = 0;  // stated unpacked size; 0: the true one
    std::string extra = {};     // field of the directory
};

inline std::string deflated(const std::string& bytes) {
    z_stream stream{};
    deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    std::string packed(deflateBound(&stream, bytes.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream.avail_in = static_cast<uInt>(bytes.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    deflate(&stream, Z_FINISH);
    packed.resize(packed.size() - stream.avail_out);
    deflateEnd(&stream);
    return packed;
}

inline std::string little(std::uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
    return text;
}

inline std::string zip_of(const std::vector<ZipEntry>& entries) {
    std::string file, directory;
    for (const ZipEntry& entry : entries) {
        const std::string packed = entry.deflated ? deflated(entry.bytes) : entry.bytes;
        const std::uint32_t claimed =
            entry.claimed != 0 ? entry.claimed : static_cast<std::uint32_t>(entry.bytes.size());
        const auto checksum = ::crc32(0, reinterpret_cast<const Bytef*>(entry.bytes.data()),
                                      static_cast<uInt>(entry.bytes.size()));
        const std::string common = little(20, 2) + little(0, 2) +
                                   little(entry.deflated ? 8 : 0, 2) + little(0, 4) +
                                   little(checksum, 4) + little(packed.size(), 4) +
                                   little(claimed, 4) + little(entry.name.size(), 2);
        directory += "PK\1\2" + little(20, 2) + common + little(entry.extra.size(), 2) +
                     little(0, 2) + little(0, 2) + little(0, 2) + little(0, 4) +
                     little(file.size(), 4) + entry.name + entry.extra;
        file += "PK\3\4" + common + little(0, 2) + entry.name + packed;
    }
    const auto count = little(entries.size(), 2);
    return file + directory + "PK\5\6" + little(0, 4) + count + count +
           little(directory.size(), 4) + little(file.size(), 4) + little(0, 2);
}

struct TarEntry {
    std::string name, bytes;
    char type = '0';
    std::string target = {};  // of a link
};

inline std::string octal(std::size_t value, int digits) {
    std::string text(static_cast<std::size_t>(digits), '0');
    for (int i = digits; i-- > 0; value /= 8)
        text[static_cast<std::size_t>(i)] = static_cast<char>('0' + value % 8);
    return text;
}

inline std::string tar_of(const std::vector<TarEntry>& entries) {
    std::string file;
    for (const TarEntry& entry : entries) {
        std::string header = entry.name;
        header.resize(512);
        header.replace(124, 12, octal(entry.bytes.size(), 11) + " ");
        header.replace(148, 8, "        ");
        header[156] = entry.type;
        header.replace(157, entry.target.size(), entry.target);
        header.replace(257, 6, std::string("ustar\0", 6));
        std::size_t sum = 0;
        for (const char byte : header) sum += static_cast<unsigned char>(byte);
        header.replace(148, 7, octal(sum, 6) + std::string("\0", 1));
        file += header + entry.bytes;
        file.resize((file.size() + 511) / 512 * 512);
    }
    file.resize(file.size() + 1024);
    return file;
}

}  // namespace atelier::core
