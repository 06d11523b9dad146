#include "atelier/core/output_path.h"

#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <mutex>
#include <set>
#include <string>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/temporary.h"

namespace atelier::core {

namespace fs = std::filesystem;

namespace {

/// Outputs whose other hard links are kept (check_output_file).
class NamedOutputs {
public:
    void add(const fs::path& target) {
        const std::lock_guard lock(mutex_);
        paths_.insert(fs::absolute(target).lexically_normal().string());
    }
    bool holds(const fs::path& target) {
        const std::lock_guard lock(mutex_);
        return paths_.contains(fs::absolute(target).lexically_normal().string());
    }

private:
    std::mutex mutex_;
    std::set<std::string> paths_;
};

NamedOutputs& named_outputs() {
    static NamedOutputs all;
    return all;
}

/// The nearest existing parent folder of `path`.
fs::path existing_folder(const fs::path& path) {
    std::error_code ignored;
    fs::path folder = folder_of(path);
    while (!fs::exists(folder, ignored) && folder.has_parent_path() &&
           folder != folder.parent_path())
        folder = folder.parent_path();
    return fs::exists(folder, ignored) ? folder : fs::path(".");
}

/// Throws Error unless a new entry `target` can be created.
void check_new_entry(const fs::path& path, const fs::path& target) {
    constexpr std::size_t longest = 255;
    if (target.filename().string().size() > longest)
        fail("{}: its name is {} bytes long; file systems take {}", path.string(),
             target.filename().string().size(), longest);
    const fs::path folder = existing_folder(target);
    if (!fs::is_directory(folder))
        fail("{}: cannot be written; {} is not a folder", path.string(), folder.string());
    if (::access(folder.c_str(), W_OK | X_OK) != 0)
        fail("{}: cannot be written ({}); is the folder writable?", path.string(),
             std::strerror(errno));
}

}  // namespace

int own_descriptor(const fs::path& path) {
    const std::string text = path.lexically_normal().string();
    if (text == "/dev/stdout") return STDOUT_FILENO;
    if (text == "/dev/stderr") return STDERR_FILENO;
    for (const std::string& begin : {std::string("/dev/fd/"), std::string("/proc/self/fd/"),
                                     "/proc/" + std::to_string(::getpid()) + "/fd/"}) {
        if (!text.starts_with(begin)) continue;
        int number = -1;
        const auto [rest, problem] =
            std::from_chars(text.data() + begin.size(), text.data() + text.size(), number);
        if (problem == std::errc() && rest == text.data() + text.size() && number >= 0)
            return number;
    }
    return -1;
}

fs::path resolve_links(const fs::path& given) {
    constexpr int max_links = 40;
    fs::path path = given;
    for (int links = 0; links < max_links; ++links) {
        std::error_code problem;
        if (own_descriptor(path) >= 0 || !fs::is_symlink(fs::symlink_status(path, problem)))
            return path;
        const fs::path next = fs::read_symlink(path, problem);
        if (problem) return path;
        path = next.is_absolute() ? next : folder_of(path) / next;
    }
    fail("{}: its symbolic links form a loop", given.string());
}

struct stat status_of(const fs::path& path) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) status.st_mode = 0;
    return status;
}

void reject_folders_and_sockets(const fs::path& path, const struct stat& status) {
    if (S_ISDIR(status.st_mode)) fail("{}: is a folder; name a file", path.string());
    if (S_ISSOCK(status.st_mode))
        fail("{}: is a socket; name a file, a pipe or a device", path.string());
}

bool is_named_output(const fs::path& target) { return named_outputs().holds(target); }

bool is_stream(const fs::path& path) {
    const fs::path target = resolve_links(path);
    if (own_descriptor(target) >= 0) return true;
    const struct stat status = status_of(target);
    return status.st_mode != 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

void check_output_file(const fs::path& path) {
    if (!path.has_filename()) fail("{}: is not a file name", path.string());
    const fs::path target = resolve_links(path);
    if (own_descriptor(target) >= 0) return;
    const struct stat status = status_of(target);
    reject_folders_and_sockets(path, status);
    named_outputs().add(target);
    if (status.st_mode != 0 && !S_ISREG(status.st_mode)) {
        if (::access(target.c_str(), W_OK) != 0)
            fail("{}: cannot be written ({})", path.string(), std::strerror(errno));
        return;
    }
    if (status.st_mode != 0 && ::access(target.c_str(), W_OK) == 0) return;
    check_new_entry(path, target);
}

void check_output_folder(const fs::path& path) {
    const fs::path target = path.has_filename() ? path : path.parent_path();
    std::error_code ignored;
    if (fs::exists(target, ignored))
        fail("{}: exists already; remove it or choose another name", target.string());
    check_new_entry(target, resolve_links(target));
}

}  // namespace atelier::core
