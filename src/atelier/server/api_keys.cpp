#include "atelier/server/api_keys.h"

#include <openssl/crypto.h>

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/regular_file.h"

namespace atelier::server {

namespace {

constexpr std::uint64_t max_file_bytes = 1 << 20;

std::string text_of(const std::filesystem::path& path) {
    core::RegularFile file(path);
    if (file.size() > max_file_bytes)
        core::fail("{}: is larger than a file of API keys should be", path.string());
    std::string text(file.size(), '\0');
    text.resize(file.read(std::as_writable_bytes(std::span(text))));
    return text;
}

std::string_view without_spaces_around(std::string_view line) {
    constexpr std::string_view spaces = " \t\r";
    const std::size_t first = line.find_first_not_of(spaces);
    return first == std::string_view::npos
               ? std::string_view()
               : line.substr(first, line.find_last_not_of(spaces) + 1 - first);
}

struct Key {
    std::string text;
    std::size_t line;  // from 1
};

/// Throws core::Error if there is none.
std::vector<Key> keys_of(const std::filesystem::path& file) {
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    const std::string text = text_of(file);
    std::vector<Key> keys;
    std::size_t line = 0;
    for (std::size_t first = text.starts_with(byte_order_mark) ? byte_order_mark.size() : 0;
         first < text.size();) {
        const std::size_t end = std::min(text.find('\n', first), text.size());
        const std::string_view key =
            without_spaces_around(std::string_view(text).substr(first, end - first));
        ++line;
        if (!key.empty() && key.front() != '#') keys.push_back({std::string(key), line});
        first = end + 1;
    }
    if (keys.empty()) core::fail("{}: holds no API key; write one per line", file.string());
    for (const Key& key : keys) {
        const auto unfit = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
        if (std::ranges::any_of(key.text, unfit))
            core::fail(
                "{}:{}: holds a control character, which a header cannot carry; is it a text file "
                "in "
                "UTF-8?",
                file.string(), key.line);
    }
    return keys;
}

}  // namespace

ApiKeys::ApiKeys(const std::filesystem::path& file) {
    constexpr std::size_t hard_to_guess = 16;  // bytes
    const std::vector<Key> keys = keys_of(file);
    for (const Key& key : keys) digests_.push_back(core::sha256(key.text));
    const auto is_short = [](const Key& key) { return key.text.size() < hard_to_guess; };
    const auto first = std::ranges::find_if(keys, is_short);
    if (first == keys.end()) return;
    core::log::warning(
        "{}:{}: a key of {} bytes can be guessed ({} of {} here); make one with: openssl rand -hex "
        "32",
        file.string(), first->line, first->text.size(), std::ranges::count_if(keys, is_short),
        keys.size());
}

std::string first_key(const std::filesystem::path& file) { return keys_of(file).front().text; }

bool ApiKeys::accepts(std::string_view key) const {
    const std::string digest = core::sha256(key);
    bool known = false;
    for (const std::string& one : digests_)
        known |= ::CRYPTO_memcmp(one.data(), digest.data(), digest.size()) == 0;
    return known;
}

}  // namespace atelier::server
