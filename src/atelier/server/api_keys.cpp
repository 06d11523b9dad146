#include "atelier/server/api_keys.h"

#include <openssl/crypto.h>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/regular_file.h"

namespace atelier::server {

namespace {

constexpr std::uint64_t largest_file = 1 << 20;

std::string text_of(const std::filesystem::path& path) {
    core::RegularFile file(path);
    if (file.size() > largest_file) core::fail("{}: is larger than a file of API keys should be", path.string());
    std::string text(file.size(), '\0');
    text.resize(file.read(std::as_writable_bytes(std::span(text))));
    return text;
}

std::string_view without_spaces_around(std::string_view line) {
    constexpr std::string_view spaces = " \t\r";
    const std::size_t first = line.find_first_not_of(spaces);
    return first == std::string_view::npos ? std::string_view() : line.substr(first, line.find_last_not_of(spaces) + 1 - first);
}

/// At least one.
std::vector<std::string> keys_of(const std::filesystem::path& file) {
    const std::string text = text_of(file);
    std::vector<std::string> keys;
    for (std::size_t first = 0; first < text.size();) {
        const std::size_t end = std::min(text.find('\n', first), text.size());
        const std::string_view key = without_spaces_around(std::string_view(text).substr(first, end - first));
        if (!key.empty() && key.front() != '#') keys.emplace_back(key);
        first = end + 1;
    }
    if (keys.empty()) core::fail("{}: holds no API key; write one a line", file.string());
    return keys;
}

}  // namespace

ApiKeys::ApiKeys(const std::filesystem::path& file) {
    for (const std::string& key : keys_of(file)) digests_.push_back(core::sha256(key));
}

std::string first_key(const std::filesystem::path& file) { return keys_of(file).front(); }

bool ApiKeys::knows(std::string_view key) const {
    const std::string digest = core::sha256(key);
    bool known = false;
    for (const std::string& one : digests_) known |= ::CRYPTO_memcmp(one.data(), digest.data(), digest.size()) == 0;
    return known;
}

}  // namespace atelier::server
