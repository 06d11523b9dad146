#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace atelier::inference {

/// Compiled networks on disk, by a key that names everything they depend on. They are stored in the
/// user's own cache and not beside the models: the runtime trusts a compiled network as a program,
/// and a model directory may come from anyone.
class CompileCache {
public:
    /// $ATELIER_CACHE ("off" disables it), else $XDG_CACHE_HOME/atelier, else ~/.cache/atelier.
    static CompileCache default_cache();

    /// An empty `folder` disables the cache. Beyond `capacity` bytes, the least recently used
    /// entries are evicted.
    explicit CompileCache(std::filesystem::path folder, std::uintmax_t capacity = 512ULL << 20)
        : folder_(std::move(folder)), capacity_(capacity) {}

    /// The entry of `key`, or nothing when there is none or its checksum does not match.
    std::optional<std::string> find(const std::string& key) const;

    /// Stores `bytes` under `key`. Failures are silent: a folder that cannot be written only costs
    /// compile time at the next start.
    void store(const std::string& key, const std::string& bytes) const;

private:
    std::filesystem::path file_of(const std::string& key) const;
    void evict() const;

    std::filesystem::path folder_;
    std::uintmax_t capacity_;
};

}  // namespace atelier::inference
