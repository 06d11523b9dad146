#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace atelier::inference {

/// Compiled networks on disk, by a key that names all that they depend on. They lie in the user's own cache and not beside the models: a compiled
/// network is a program that the runtime believes, and a model directory may come from anyone.
class CompileCache {
public:
    /// $ATELIER_CACHE ("off": none), else $XDG_CACHE_HOME/atelier, else ~/.cache/atelier.
    static CompileCache usual();

    /// Without a folder, nothing is found or kept. Beyond `capacity` bytes, what was not used for longest goes.
    explicit CompileCache(std::filesystem::path folder, std::uintmax_t capacity = 512ULL << 20) : folder_(std::move(folder)), capacity_(capacity) {}

    /// What was kept under `key`; nothing when there is none or the file is damaged.
    std::optional<std::string> find(const std::string& key) const;

    /// Keeps `bytes`. A folder that cannot be written costs time at the next start and nothing else, so failures are silent.
    void keep(const std::string& key, const std::string& bytes) const;

private:
    std::filesystem::path file_of(const std::string& key) const;
    void make_room() const;

    std::filesystem::path folder_;
    std::uintmax_t capacity_;
};

}  // namespace atelier::inference
