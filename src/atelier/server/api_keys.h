#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::server {

/// The API keys that clients may present. Stored as SHA-256 digests and compared in constant time.
class ApiKeys {
public:
    /// No keys: authentication is off.
    ApiKeys() = default;
    /// Reads one key per line; empty lines and lines that begin with # are skipped. Logs a warning
    /// about short keys. Throws core::Error if there is none, or one with a control character.
    explicit ApiKeys(const std::filesystem::path& file);

    bool required() const { return !digests_.empty(); }
    bool accepts(std::string_view key) const;

private:
    std::vector<std::string> digests_;
};

/// The first key of such a file, for authenticating to another server. Throws core::Error if there
/// is none.
std::string first_key(const std::filesystem::path& file);

}  // namespace atelier::server
