#include "atelier/core/hash.h"

#include <openssl/evp.h>

#include <array>
#include <memory>
#include <vector>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/regular_file.h"

namespace atelier::core {

namespace {

class Sha256 {
public:
    Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1)
            fail("OpenSSL offers no SHA-256");
    }

    void add(std::span<const std::byte> bytes) {
        EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
    }

    std::string hexadecimal() {
        std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
        unsigned int length = 0;
        EVP_DigestFinal_ex(context_.get(), digest.data(), &length);
        std::string text;
        for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
        return text;
    }

private:
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

std::string sha256(std::span<const std::byte> bytes) {
    Sha256 hash;
    hash.add(bytes);
    return hash.hexadecimal();
}

std::string sha256_of_lines(std::span<const std::string> lines) {
    return sha256(fmt::format("{}", fmt::join(lines, "\n")));
}

std::string sha256_of_file(const std::filesystem::path& path) {
    RegularFile file(path);
    Sha256 hash;
    std::vector<std::byte> buffer(std::size_t{1} << 20);
    while (const std::size_t got = file.read(buffer)) hash.add(std::span(buffer).first(got));
    return hash.hexadecimal();
}

}  // namespace atelier::core
