#include "atelier/core/temporary.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::core {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyz0123456789";
constexpr std::string_view temporary_ending = ".atelier.tmp";
constexpr std::size_t letters_per_name = 10;

std::string random_letters() {
    std::random_device device;
    std::uniform_int_distribution<std::size_t> any(0, letters.size() - 1);
    std::string text;
    for (std::size_t i = 0; i < letters_per_name; ++i) text += letters[any(device)];
    return text;
}

std::size_t name_limit(const fs::path& folder) {
    const long most = ::pathconf(folder.c_str(), _PC_NAME_MAX);
    return most > 64 && most < 255 ? static_cast<std::size_t>(most) : 255;
}

fs::path temporary_beside(const fs::path& target) {
    constexpr std::size_t added = 1 + 1 + letters_per_name + temporary_ending.size();
    std::string name = target.filename().string();
    std::size_t length = std::min(name.size(), name_limit(folder_of(target)) - added);
    // Do not cut through a UTF-8 character: some file systems reject such names.
    while (length < name.size() && length > 0 &&
           (static_cast<unsigned char>(name[length]) & 0xc0) == 0x80)
        --length;
    name.resize(length);
    return folder_of(target) /
           ("." + name + "." + random_letters() + std::string(temporary_ending));
}

/// Whether a name has the form `.NAME.<ten letters>.atelier.tmp`.
bool is_temporary_name(std::string_view name) {
    if (name.size() < 3 + letters_per_name + temporary_ending.size() || name.front() != '.' ||
        !name.ends_with(temporary_ending))
        return false;
    name.remove_suffix(temporary_ending.size());
    const std::string_view middle = name.substr(name.size() - letters_per_name);
    return name[name.size() - letters_per_name - 1] == '.' &&
           middle.find_first_not_of(letters) == middle.npos;
}

/// Whether `path` still names the open file of `descriptor`.
bool is_still_there(const fs::path& path, int descriptor) {
    struct stat named{}, open{};
    return ::lstat(path.c_str(), &named) == 0 && ::fstat(descriptor, &open) == 0 &&
           named.st_ino == open.st_ino && named.st_dev == open.st_dev;
}

/// Calls `create` with new names until one is free and has not been removed by another process (as
/// a leftover) before it was locked.
template <class Create>
Temporary create_locked(const fs::path& target, const Create& create) {
    constexpr int most_attempts = 100;
    for (int attempts = 0; attempts < most_attempts; ++attempts) {
        const fs::path path = temporary_beside(target);
        const int descriptor = create(path);
        if (descriptor < 0 && errno == EEXIST) continue;
        if (descriptor < 0) return {};
        // Where locks are not supported, nothing is swept either.
        const bool taken = ::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        if (!taken && is_still_there(path, descriptor)) return {path, descriptor};
        ::close(descriptor);
    }
    errno = EEXIST;
    return {};
}

void remove_if_dead(const fs::path& path, bool trust_locks) {
    constexpr time_t day = time_t{24} * 60 * 60;
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0 || status.st_uid != ::geteuid()) return;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return;
    if (!trust_locks && ::time(nullptr) - status.st_mtime < day) return;
    const int descriptor = ::open(path.c_str(), (S_ISDIR(status.st_mode) ? O_RDONLY : O_RDWR) |
                                                    O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0) return;
    std::error_code ignored;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0 && is_still_there(path, descriptor))
        fs::remove_all(path, ignored);
    ::close(descriptor);
}

}  // namespace

bool locks_are_shared(const fs::path& folder) {
    constexpr std::array<unsigned, 8> networks{
        NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC,         0xff534d42 /* cifs */, 0xfe534d42 /* smb2 */,
        FUSE_SUPER_MAGIC, 0x0bd00bd0 /* lustre */, CEPH_SUPER_MAGIC,      V9FS_MAGIC};
    struct statfs facts{};
    return ::statfs(folder.c_str(), &facts) == 0 &&
           std::ranges::find(networks, static_cast<unsigned>(facts.f_type)) == networks.end();
}

fs::path folder_of(const fs::path& path) {
    return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

Temporary create_temporary_file(const fs::path& target) {
    return create_locked(target, [](const fs::path& path) {
        return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    });
}

Temporary create_temporary_folder(const fs::path& target) {
    return create_locked(target, [](const fs::path& path) {
        return ::mkdir(path.c_str(), 0777) != 0
                   ? -1
                   : ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    });
}

void sweep_temporaries(const fs::path& folder) {
    static std::mutex mutex;
    static std::set<std::string> swept;
    std::error_code ignored;
    {
        const std::lock_guard lock(mutex);
        if (!swept.insert(fs::absolute(folder, ignored).lexically_normal().string()).second) return;
    }
    std::vector<fs::path> found;
    for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end;
         entry.increment(ignored)) {
        if (is_temporary_name(entry->path().filename().string())) found.push_back(entry->path());
    }
    const bool trust = found.empty() || locks_are_shared(folder);
    for (const fs::path& path : found) remove_if_dead(path, trust);
}

}  // namespace atelier::core
