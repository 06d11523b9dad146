#include "atelier/core/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "atelier/core/error.h"
#include "atelier/core/file_faults.h"
#include "atelier/core/regular_file.h"

namespace atelier::core {

namespace fs = std::filesystem;

namespace {

int fault_before(const char* call) { return file_faults::before_call != nullptr ? file_faults::before_call(call) : 0; }

// Does a system call unless a test wants it to fail.
template <class Call>
int attempt(const char* name, const Call& call) {
    if (const int fault = fault_before(name); fault > 0) {
        errno = fault;
        return -1;
    }
    return call();
}

ssize_t attempt_write(int descriptor, const std::byte* bytes, std::size_t count) {
    const int fault = fault_before("write");
    if (fault > 0) {
        errno = fault;
        return -1;
    }
    return ::write(descriptor, bytes, fault == file_faults::short_write ? 1 : count);
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

fs::path temporary_beside(const fs::path& path) {
    return folder_of(path) / fmt::format(".{}.{}.tmp", path.filename().string(), ::getpid());
}

void create_folders(const fs::path& folder) {
    std::error_code problem;
    fs::create_directories(folder, problem);
    if (problem && !fs::is_directory(folder)) fail("{}: the folder cannot be created ({})", folder.string(), problem.message());
}

// A rename is on disk only when the folder that holds the name is.
void flush_folder(const fs::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int status = descriptor < 0 ? -1 : attempt("fsync folder", [&] { return ::fsync(descriptor); });
    const int problem = errno;
    if (descriptor >= 0) ::close(descriptor);
    // Some file systems cannot flush a folder and say EINVAL; there is nothing more to do on those.
    if (status != 0 && problem != EINVAL) fail("{}: cannot be flushed to disk ({})", folder.string(), std::strerror(problem));
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
    if (attempt("rename", [&] { return std::rename(from.c_str(), to.c_str()); }) != 0) {
        fail("{}: cannot be put in place ({})", to.string(), std::strerror(errno));
    }
}

}  // namespace

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), temporary_(temporary_beside(path_)) {
    if (!path_.has_filename()) fail("{}: is no name for a file", path_.string());
    create_folders(folder_of(path_));
    descriptor_ =
        attempt("open", [&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666); });
    if (descriptor_ < 0) {
        fail("{}: cannot be written ({}); is the folder writable?", path_.string(), std::strerror(errno));
    }
}

AtomicFile::~AtomicFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t written = attempt_write(descriptor_, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail("{}: writing failed ({}); is the disk full?", path_.string(), std::strerror(errno));
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
    if (attempt("fsync", [&] { return ::fsync(descriptor_); }) != 0) {
        fail("{}: cannot be flushed to disk ({})", path_.string(), std::strerror(errno));
    }
    // Network file systems report a full disk only here.
    const int descriptor = std::exchange(descriptor_, -1);
    const int closed = ::close(descriptor);
    if (attempt("close", [&] { return closed; }) != 0) fail("{}: writing failed ({})", path_.string(), std::strerror(errno));
    rename_or_fail(temporary_, path_);
    temporary_.clear();
    flush_folder(folder_of(path_));
}

void write_text(const fs::path& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

std::string read_text(const fs::path& path, std::size_t largest) {
    RegularFile file(path);
    if (file.size() > largest) fail("{}: is {} bytes long; at most {} are read", path.string(), file.size(), largest);
    std::string text(static_cast<std::size_t>(file.size()), '\0');
    text.resize(file.read(std::as_writable_bytes(std::span(text))));
    return text;
}

namespace {

/// Temporary forms of `target` whose process was killed before it could put them away.
void remove_what_the_dead_left(const fs::path& target) {
    const std::string begin = "." + target.filename().string() + ".", end = ".tmp";
    std::error_code ignored;
    std::vector<fs::path> left;
    for (const auto& entry : fs::directory_iterator(folder_of(target), ignored)) {
        const std::string name = entry.path().filename().string();
        if (name.size() <= begin.size() + end.size() || !name.starts_with(begin) || !name.ends_with(end)) continue;
        const std::string digits = name.substr(begin.size(), name.size() - begin.size() - end.size());
        pid_t process = 0;
        const auto [rest, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), process);
        if (problem != std::errc() || rest != digits.data() + digits.size() || process <= 0) continue;
        if (::kill(process, 0) != 0 && errno == ESRCH) left.push_back(entry.path());
    }
    for (const fs::path& path : left) fs::remove_all(path, ignored);
}

}  // namespace

void create_directory_atomically(const fs::path& path, const std::function<void(const fs::path& temporary)>& fill) {
    const fs::path target = path.has_filename() ? path : path.parent_path();  // "a/b/" is "a/b"
    std::error_code ignored;
    if (fs::exists(fs::symlink_status(target, ignored)))
        fail("{}: exists already; remove it or choose another name", target.string());
    create_folders(folder_of(target));
    const fs::path temporary = temporary_beside(target);
    fs::remove_all(temporary, ignored);
    remove_what_the_dead_left(target);
    try {
        create_folders(temporary);
        fill(temporary);
        flush_folder(temporary);
        rename_or_fail(temporary, target);
    } catch (...) {
        fs::remove_all(temporary, ignored);
        throw;
    }
    flush_folder(folder_of(target));
}

DirectoryLock::DirectoryLock(const fs::path& directory) {
    create_folders(directory);
    const fs::path lock = directory / ".lock";
    descriptor_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail("{}: cannot be opened ({}); is the folder writable?", lock.string(), std::strerror(errno));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    const int problem = errno;
    ::close(descriptor_);
    if (problem != EWOULDBLOCK) fail("{}: cannot be locked ({})", lock.string(), std::strerror(problem));
    fail("{}: another process is working in this directory; wait for it to end or choose another output", directory.string());
}

DirectoryLock::~DirectoryLock() { ::close(descriptor_); }

}  // namespace atelier::core
