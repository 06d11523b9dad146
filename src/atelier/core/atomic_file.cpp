#include "atelier/core/atomic_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "atelier/core/environment.h"
#include "atelier/core/error.h"
#include "atelier/core/file_faults.h"
#include "atelier/core/output_path.h"
#include "atelier/core/regular_file.h"
#include "atelier/core/signals.h"
#include "atelier/core/temporary.h"

namespace atelier::core {

namespace fs = std::filesystem;

namespace {

int fault_before(const char* call) {
    return file_faults::before_call != nullptr ? file_faults::before_call(call) : 0;
}

// Makes a system call unless a test injects a failure.
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

constexpr std::size_t copy_chunk = std::size_t{1} << 20;

/// Folders that are being filled under temporary names. Their files are flushed once, before the
/// folder gets its name: flushing a thousand images one by one takes longer than generating them.
class UnfinishedFolders {
public:
    void add(const fs::path& folder, const fs::path& target) {
        const std::lock_guard lock(mutex_);
        folders_[fs::absolute(folder).lexically_normal()] = target;
    }
    void remove(const fs::path& folder) {
        const std::lock_guard lock(mutex_);
        folders_.erase(fs::absolute(folder).lexically_normal());
    }
    /// The final path of a file in one of them; nothing for other files.
    std::optional<fs::path> final_path(const fs::path& path) {
        const std::lock_guard lock(mutex_);
        if (folders_.empty()) return std::nullopt;
        const fs::path whole = fs::absolute(path).lexically_normal();
        for (fs::path folder = whole; folder.has_relative_path(); folder = folder.parent_path()) {
            if (const auto found = folders_.find(folder); found != folders_.end())
                return found->second / whole.lexically_relative(folder);
        }
        return std::nullopt;
    }

private:
    std::mutex mutex_;
    std::map<fs::path, fs::path> folders_;
};

UnfinishedFolders& unfinished_folders() {
    static UnfinishedFolders all;
    return all;
}

std::string hint_of(int problem) {
    if (problem == ENOSPC || problem == EDQUOT) return "; is the disk full?";
    if (problem == EFBIG) return "; the limit is the file system's, or set with ulimit -f";
    return "";
}

[[noreturn]] void writing_failed(const fs::path& path, int problem) {
    fail("{}: writing failed ({}){}", path.string(), std::strerror(problem), hint_of(problem));
}

/// fsync; success for descriptors that cannot be flushed.
int flush(int descriptor) {
    const int status = attempt("fsync", [&] { return ::fsync(descriptor); });
    return status != 0 && (errno == EINVAL || errno == EROFS || errno == ENOTSUP) ? 0 : status;
}

void create_folders(const fs::path& folder) {
    std::error_code problem;
    fs::create_directories(folder, problem);
    if (problem && !fs::is_directory(folder))
        fail("{}: the folder cannot be created ({})", folder.string(), problem.message());
}

// A rename is durable only when the folder that holds the name is flushed.
void flush_folder(const fs::path& folder) {
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int status =
        descriptor < 0 ? -1 : attempt("fsync folder", [&] { return ::fsync(descriptor); });
    const int problem = errno;
    if (descriptor >= 0) ::close(descriptor);
    // Some file systems cannot flush a folder and report EINVAL; nothing more can be done there.
    if (status != 0 && problem != EINVAL)
        fail("{}: cannot be flushed to disk ({})", folder.string(), std::strerror(problem));
}

void rename_folder(const fs::path& from, const fs::path& to) {
    if (attempt("rename", [&] { return std::rename(from.c_str(), to.c_str()); }) == 0) return;
    if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)
        fail("{}: exists already; another process has just made it", to.string());
    fail("{}: cannot be put in place ({})", to.string(), std::strerror(errno));
}

/// Flushes everything in a folder to disk: file by file where there are few, otherwise with all
/// pending writes of the file system.
void flush_tree(const fs::path& folder, int descriptor) {
    constexpr std::size_t few = 32;
    std::vector<fs::path> all{folder};
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (!entry.is_symlink() && (entry.is_regular_file() || entry.is_directory()))
            all.push_back(entry.path());
    }
    if (all.size() > few) {
        if (attempt("fsync", [&] { return ::syncfs(descriptor); }) != 0)
            fail("{}: cannot be flushed to disk ({})", folder.string(), std::strerror(errno));
        return;
    }
    for (const fs::path& path : all) {
        const int open = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (open < 0) continue;  // not readable by this user
        const int status = flush(open), problem = errno;
        ::close(open);
        if (status != 0)
            fail("{}: cannot be flushed to disk ({})", path.string(), std::strerror(problem));
    }
}

/// Fills a temporary folder beside `beside`, flushes it to disk and calls `put_in_place`. Messages
/// name its files as if they were in `target`. When something throws, nothing is left behind.
void fill_temporary_folder(const fs::path& beside, const fs::path& target,
                           const std::function<void(const fs::path& temporary)>& fill,
                           const std::function<void(const fs::path& temporary)>& put_in_place) {
    const Temporary temporary = create_temporary_folder(beside);
    if (temporary.descriptor < 0)
        fail("{}: cannot be written ({}); is the folder writable?", target.string(),
             std::strerror(errno));
    try {
        unfinished_folders().add(temporary.path, target);
        fill(temporary.path);
        unfinished_folders().remove(temporary.path);
        flush_tree(temporary.path, temporary.descriptor);
        put_in_place(temporary.path);
    } catch (...) {
        unfinished_folders().remove(temporary.path);
        std::error_code ignored;
        fs::remove_all(temporary.path, ignored);
        ::close(temporary.descriptor);
        throw;
    }
    ::close(temporary.descriptor);
}

}  // namespace

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
    if (!path_.has_filename()) fail("{}: is not a file name", path_.string());
    target_ = resolve_links(path_);
    const struct stat status = status_of(target_);
    if (own_descriptor(target_) < 0) reject_folders_and_sockets(path_, status);
    if (is_stream(target_)) {
        open_stream();
        return;
    }
    if (target_ == path_) create_folders(folder_of(target_));
    if (const auto name = unfinished_folders().final_path(target_)) path_ = *name;  // in messages
    sweep_temporaries(folder_of(target_));
    open_temporary();
}

AtomicFile::~AtomicFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::open_stream() {
    mode_ = Mode::stream;
    if (const int own = own_descriptor(target_); own >= 0) {
        // Reopened, a file would be written from its start, and a socket could not be opened at
        // all.
        descriptor_ = attempt("open", [&] { return ::fcntl(own, F_DUPFD_CLOEXEC, 3); });
    } else {
        constexpr auto poll_interval = std::chrono::milliseconds(20);
        const auto open = [&] {
            return ::open(target_.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        };
        // Wait here for the reader of a pipe, so that a stop signal is noticed.
        while ((descriptor_ = attempt("open", open)) < 0 && errno == ENXIO &&
               S_ISFIFO(status_of(target_).st_mode)) {
            if (stop_requested())
                throw Interrupted(path_.string() +
                                  ": interrupted while waiting for a reader of the pipe");
            std::this_thread::sleep_for(poll_interval);
        }
    }
    if (descriptor_ < 0) fail("{}: cannot be written ({})", path_.string(), std::strerror(errno));
}

void AtomicFile::open_temporary() {
    Temporary temporary;
    descriptor_ = attempt("open", [&] {
        temporary = create_temporary_file(target_);
        return temporary.descriptor;
    });
    if (descriptor_ >= 0) {
        temporary_ = temporary.path;
        return keep_attributes();
    }
    const int problem = errno;
    // No new file can be created in the folder, but the file itself may be writable, e.g. one that
    // is mounted into a read-only container.
    if (problem == EACCES || problem == EPERM || problem == EROFS)
        descriptor_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0)
        fail("{}: cannot be written ({}); is the folder writable?", path_.string(),
             std::strerror(problem));
    mode_ = Mode::overwrite;
}

/// Copies owner, mode and access list of the replaced file, as far as this user may set them.
void AtomicFile::keep_attributes() const {
    struct stat before = status_of(target_), now{};
    if (before.st_mode == 0 || ::fstat(descriptor_, &now) != 0) return;
    bool same = before.st_uid == now.st_uid && before.st_gid == now.st_gid;
    if (!same) same = ::fchown(descriptor_, before.st_uid, before.st_gid) == 0;
    if (!same && before.st_gid != now.st_gid) [[maybe_unused]]
        const int ignored = ::fchown(descriptor_, static_cast<uid_t>(-1), before.st_gid);
    ::fchmod(descriptor_, before.st_mode & (same ? 07777 : 0777));
    constexpr const char* access_list = "system.posix_acl_access";
    std::array<char, 4096> list{};
    const ssize_t size = ::getxattr(target_.c_str(), access_list, list.data(), list.size());
    if (size > 0)
        ::fsetxattr(descriptor_, access_list, list.data(), static_cast<std::size_t>(size), 0);
}

void AtomicFile::begin_overwriting() {
    begun_ = true;
    while (::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR) {
    }
    if (attempt("ftruncate", [&] { return ::ftruncate(descriptor_, 0); }) != 0)
        writing_failed(path_, errno);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
    if (mode_ == Mode::overwrite && !begun_) begin_overwriting();
    while (!bytes.empty()) {
        const ssize_t written = attempt_write(descriptor_, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && errno == EAGAIN && mode_ == Mode::stream) {
            if (stop_requested())
                throw Interrupted(path_.string() + ": interrupted while its reader was waited for");
            pollfd ready{descriptor_, POLLOUT, 0};
            ::poll(&ready, 1, 100);
            continue;
        }
        if (written < 0) writing_failed(path_, errno);
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
    if (mode_ == Mode::overwrite && !begun_) begin_overwriting();
    const bool flushed_later =
        mode_ == Mode::replace && unfinished_folders().final_path(target_).has_value();
    if (!flushed_later && flush(descriptor_) != 0)
        fail("{}: cannot be flushed to disk ({})", path_.string(), std::strerror(errno));
    // Hold the lock on the temporary file until it is renamed.
    const int lock = mode_ == Mode::replace ? ::fcntl(descriptor_, F_DUPFD_CLOEXEC, 3) : -1;
    // Network file systems report a full disk only here.
    const int descriptor = std::exchange(descriptor_, -1);
    const int closed = ::close(descriptor), problem = errno;
    if (attempt("close", [&] {
            errno = problem;
            return closed;
        }) != 0) {
        const int reason = errno;
        if (lock >= 0) ::close(lock);
        writing_failed(path_, reason);
    }
    if (mode_ != Mode::replace) return;
    descriptor_ = lock;  // closed by the destructor if the next line throws
    rename_into_place();
    temporary_.clear();
    if (!flushed_later) flush_folder(folder_of(target_));
}

void AtomicFile::put_in_place(const fs::path& complete, int descriptor, const fs::path& path) {
    AtomicFile file;
    file.path_ = path;
    file.target_ = resolve_links(path);
    file.descriptor_ = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
    if (file.descriptor_ < 0) writing_failed(path, errno);
    file.keep_attributes();
    file.temporary_ = complete;
    try {
        file.commit();
    } catch (...) {
        file.temporary_.clear();  // which the destructor would remove
        throw;
    }
}

void AtomicFile::rename_into_place() {
    struct stat status = status_of(target_);
    if (status.st_mode != 0 && status.st_nlink > 1 && is_named_output(target_))
        return copy_over_target();
    if (attempt("rename", [&] { return std::rename(temporary_.c_str(), target_.c_str()); }) == 0)
        return;
    // A file that is a mount point cannot be replaced by a rename.
    if (errno != EBUSY)
        fail("{}: cannot be put in place ({})", path_.string(), std::strerror(errno));
    copy_over_target();
}

void AtomicFile::copy_over_target() {
    AtomicFile over;
    over.path_ = path_;
    over.mode_ = Mode::overwrite;
    over.descriptor_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC);
    if (over.descriptor_ < 0)
        fail("{}: cannot be written ({})", path_.string(), std::strerror(errno));
    std::vector<std::byte> block(copy_chunk);
    RegularFile from(temporary_);
    while (const std::size_t count = from.read(block)) over.write(std::span(block).first(count));
    over.commit();
    ::unlink(temporary_.c_str());
}

void write_text(const fs::path& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

std::string read_text(const fs::path& path, std::size_t largest) {
    RegularFile file(path);
    if (file.size() > largest)
        fail("{}: is {} bytes long; at most {} are read", path.string(), file.size(), largest);
    std::string text(static_cast<std::size_t>(file.size()), '\0');
    text.resize(file.read(std::as_writable_bytes(std::span(text))));
    return text;
}

void create_directory_atomically(const fs::path& path,
                                 const std::function<void(const fs::path& temporary)>& fill) {
    check_output_folder(path);
    const fs::path target =
        resolve_links(path.has_filename() ? path : path.parent_path());  // "a/b/" is "a/b"
    create_folders(folder_of(target));
    sweep_temporaries(folder_of(target));
    fill_temporary_folder(target, target, fill,
                          [&](const fs::path& temporary) { rename_folder(temporary, target); });
    flush_folder(folder_of(target));
}

void add_files_atomically(const fs::path& folder,
                          const std::function<void(const fs::path& temporary)>& fill) {
    const fs::path target = resolve_links(folder.has_filename() ? folder : folder.parent_path());
    create_folders(target);
    sweep_temporaries(target);
    fill_temporary_folder(target / "files", target, fill, [&](const fs::path& temporary) {
        std::vector<fs::path> files;
        for (const auto& entry : fs::directory_iterator(temporary)) files.push_back(entry.path());
        for (const fs::path& from : files) {
            const fs::path to = target / from.filename();
            if (attempt("rename", [&] { return std::rename(from.c_str(), to.c_str()); }) != 0)
                fail("{}: cannot be put in place ({})", to.string(), std::strerror(errno));
        }
        fs::remove(temporary);
    });
    flush_folder(target);
}

namespace {

constexpr const char* lock_name = ".lock";

/// What a holder wrote: "PID HOST\n".
std::optional<LockHolder> read_holder(const fs::path& lock) {
    std::ifstream file(lock);
    LockHolder holder;
    if (!(file >> holder.pid >> holder.host)) return std::nullopt;
    return holder;
}

/// Locks an open file. lock_holder takes the lock for an instant, so it is tried a few times.
bool lock_exclusively(int descriptor) {
    constexpr int attempts = 5;
    constexpr auto between = std::chrono::milliseconds(20);
    for (int i = 0; i < attempts; ++i) {
        if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return true;
        if (errno != EWOULDBLOCK) return false;
        std::this_thread::sleep_for(between);
    }
    errno = EWOULDBLOCK;
    return false;
}

}  // namespace

std::optional<LockHolder> lock_holder(const fs::path& directory) {
    const fs::path lock = directory / lock_name;
    const int descriptor = ::open(lock.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return std::nullopt;
    const bool held = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    ::close(descriptor);
    const auto holder = read_holder(lock);
    if (held) return holder.value_or(LockHolder{});
    const bool elsewhere = holder && holder->host != host_name() && !locks_are_shared(directory);
    return elsewhere ? holder : std::nullopt;
}

DirectoryLock::DirectoryLock(const fs::path& directory) {
    create_folders(directory);
    sweep_temporaries(directory);
    const fs::path lock = directory / lock_name;
    descriptor_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0)
        fail("{}: cannot be opened ({}); is the folder writable?", lock.string(),
             std::strerror(errno));
    if (lock_exclusively(descriptor_)) {
        const std::string text = fmt::format("{} {}\n", ::getpid(), host_name());
        // Only for people: the lock holds without it, as on a full disk.
        [[maybe_unused]] const bool written =
            ::ftruncate(descriptor_, 0) == 0 &&
            ::pwrite(descriptor_, text.data(), text.size(), 0) > 0;
        return;
    }
    const int problem = errno;
    ::close(descriptor_);
    if (problem != EWOULDBLOCK)
        fail("{}: cannot be locked ({})", lock.string(), std::strerror(problem));
    const auto holder = read_holder(lock);
    fail(
        "{}: another process is working in this directory{}; wait for it to end or choose another "
        "output",
        directory.string(),
        holder ? fmt::format(" (process {} on {})", holder->pid, holder->host) : "");
}

DirectoryLock::~DirectoryLock() {
    [[maybe_unused]] const int emptied = ::ftruncate(descriptor_, 0);
    ::close(descriptor_);
}

}  // namespace atelier::core
