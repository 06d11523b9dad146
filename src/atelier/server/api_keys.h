#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::server {

/// The keys that clients may show. Kept and compared as SHA-256, in a time that does not depend on where they differ.
class ApiKeys {
public:
    /// No keys: everyone is let in.
    ApiKeys() = default;
    /// A key a line; empty lines and those that begin with # are skipped. Warns of short ones.
    /// Throws core::Error when there is none, or one that no header can show.
    explicit ApiKeys(const std::filesystem::path& file);

    bool needed() const { return !digests_.empty(); }
    bool knows(std::string_view key) const;

private:
    std::vector<std::string> digests_;
};

/// The first key of such a file, to be shown to another server. Throws core::Error when there is none.
std::string first_key(const std::filesystem::path& file);

}  // namespace atelier::server
