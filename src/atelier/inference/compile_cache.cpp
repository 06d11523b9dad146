#include "atelier/inference/compile_cache.h"

#include <algorithm>
#include <vector>

#include "atelier/core/atomic_file.h"
#include "atelier/core/environment.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"

namespace atelier::inference {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t hash_length = 64;
constexpr const char* ending = ".compiled";

}  // namespace

CompileCache CompileCache::default_cache() {
    if (const auto configured = core::environment("ATELIER_CACHE"))
        return CompileCache(*configured == "off" ? "" : *configured);
    if (const auto caches = core::environment("XDG_CACHE_HOME"))
        return CompileCache(fs::path(*caches) / "atelier");
    if (const auto home = core::environment("HOME"))
        return CompileCache(fs::path(*home) / ".cache/atelier");
    return CompileCache({});
}

fs::path CompileCache::file_of(const std::string& key) const {
    return folder_ / (core::sha256(key) + ending);
}

std::optional<std::string> CompileCache::find(const std::string& key) const {
    if (folder_.empty()) return std::nullopt;
    const fs::path file = file_of(key);
    std::error_code none;
    if (!fs::is_regular_file(file, none)) return std::nullopt;
    try {
        std::string content = core::read_text(file, capacity_);
        if (content.size() <= hash_length ||
            !content.starts_with(core::sha256(std::string_view(content).substr(hash_length))))
            return std::nullopt;
        fs::last_write_time(file, fs::file_time_type::clock::now(), none);
        return content.erase(0, hash_length);
    } catch (const core::Error&) {
        return std::nullopt;
    }
}

void CompileCache::store(const std::string& key, const std::string& bytes) const {
    if (folder_.empty() || bytes.size() > capacity_ / 8) return;
    try {
        core::write_text(file_of(key), core::sha256(bytes) + bytes);
        evict();
    } catch (const core::Error&) {
    } catch (const fs::filesystem_error&) {
    }
}

void CompileCache::evict() const {
    std::vector<std::pair<fs::file_time_type, fs::path>> files;
    std::uintmax_t total = 0;
    for (const auto& entry : fs::directory_iterator(folder_)) {
        if (entry.path().extension() != ending) continue;
        files.emplace_back(entry.last_write_time(), entry.path());
        total += entry.file_size();
    }
    std::ranges::sort(files);
    for (const auto& [time, path] : files) {
        if (total <= capacity_) break;
        total -= fs::file_size(path);
        fs::remove(path);
    }
}

}  // namespace atelier::inference
