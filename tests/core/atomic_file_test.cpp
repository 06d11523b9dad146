#include "atelier/core/atomic_file.h"

#include "core/test_folder.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <thread>

#include "atelier/core/file_faults.h"
#include "atelier/core/temporary.h"

namespace atelier::core {

namespace {

int calls_left = 0;     // how many system calls still succeed
int fault = 0;          // then this fault, once
int calls_counted = 0;  // number of calls so far

int fail_the_nth(const char*) {
    ++calls_counted;
    return calls_left-- == 0 ? fault : 0;
}

// Makes the n-th system call fail during its lifetime.
class FaultAt {
public:
    FaultAt(int n, int what) {
        calls_left = n;
        fault = what;
        calls_counted = 0;
        file_faults::before_call = fail_the_nth;
    }
    ~FaultAt() { file_faults::before_call = nullptr; }
};

// Writes "new" over "old" with a fault at the n-th call; returns whether the write succeeded,
// nothing when there are fewer calls.
std::optional<bool> write_with_fault(const std::filesystem::path& path, int n, int what) {
    write_text(path, "old content");
    const FaultAt faulty(n, what);
    bool went_well = true;
    try {
        write_text(path, "new content");
    } catch (const Error&) {
        went_well = false;
    }
    if (calls_counted <= n) return std::nullopt;
    return went_well;
}

}  // namespace

TEST(AtomicFile, a_file_appears_only_with_commit) {
    const TestFolder folder;
    {
        AtomicFile file(folder / "a/b/file");
        file.write("hello ");
        file.write("there");
        EXPECT_FALSE(std::filesystem::exists(folder / "a/b/file"));
        file.commit();
    }
    EXPECT_EQ(read_text(folder / "a/b/file"), "hello there");
}

TEST(AtomicFile, without_commit_nothing_is_left_behind) {
    const TestFolder folder;
    write_text(folder / "file", "old");
    {
        AtomicFile file(folder / "file");
        file.write("new");
    }
    EXPECT_EQ(read_text(folder / "file"), "old");
    EXPECT_EQ(folder.entries(), 1U);
}

TEST(AtomicFile, whatever_call_fails_the_old_file_or_the_new_one_is_whole) {
    const TestFolder folder;
    for (const int what : {ENOSPC, EIO, EDQUOT}) {
        int n = 0;
        for (; const auto went_well = write_with_fault(folder / "file", n, what); ++n) {
            EXPECT_FALSE(*went_well) << "call " << n;
            const std::string content = read_text(folder / "file");
            EXPECT_TRUE(content == "old content" || content == "new content") << content;
            EXPECT_EQ(folder.entries(), 1U) << "call " << n << " left its temporary file";
        }
        EXPECT_GE(n, 5);  // open, write, fsync, close, rename, fsync of the folder
    }
}

TEST(AtomicFile, interrupted_and_short_writes_are_continued) {
    const TestFolder folder;
    for (const int what : {EINTR, file_faults::short_write}) {
        EXPECT_EQ(write_with_fault(folder / "file", 1, what), true);  // call 0 opens, call 1 writes
        EXPECT_EQ(read_text(folder / "file"), "new content");
    }
}

TEST(AtomicFile, a_folder_that_cannot_be_made_is_an_error_that_names_it) {
    const TestFolder folder;
    write_text(folder / "file", "");
    expect_contains(error_of([&] { write_text(folder / "file/below", ""); }),
                    (folder / "file").string());
}

TEST(AtomicFile, files_of_a_killed_writer_are_removed_and_those_of_a_living_one_are_not) {
    const TestFolder folder;
    const pid_t killed = ::fork();
    if (killed == 0) {
        AtomicFile file(folder / "step-1");
        file.write("half");
        ::kill(::getpid(), SIGKILL);
    }
    ::waitpid(killed, nullptr, 0);
    ASSERT_EQ(folder.entries(), 1U);
    const Temporary living = create_temporary_file(folder / "step-2");
    write_text(folder / "step-3", "whole");
    EXPECT_TRUE(std::filesystem::exists(living.path));
    EXPECT_EQ(folder.entries(), 2U);
    ::close(living.descriptor);
}

TEST(AtomicFile, two_writers_of_one_path_never_meet) {
    const TestFolder folder;
    AtomicFile first(folder / "file"), second(folder / "file");
    first.write("first");
    second.write("second");
    first.commit();
    EXPECT_EQ(read_text(folder / "file"), "first");
    second.commit();
    EXPECT_EQ(read_text(folder / "file"), "second");
    EXPECT_EQ(folder.entries(), 1U);
}

TEST(AtomicFile, a_symbolic_link_is_written_through) {
    const TestFolder folder;
    std::filesystem::create_directory(folder / "real");
    std::filesystem::create_symlink("real/a", folder / "link");
    std::filesystem::create_symlink("link", folder / "further");
    write_text(folder / "further", "1");  // a dangling one at first
    write_text(folder / "link", "2");
    EXPECT_EQ(read_text(folder / "real/a"), "2");
    EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
    EXPECT_TRUE(std::filesystem::is_symlink(folder / "further"));
    std::filesystem::create_symlink("round", folder / "round");
    expect_contains(error_of([&] { write_text(folder / "round", ""); }), "form a loop");
}

TEST(AtomicFile, mode_and_owner_of_the_replaced_file_are_kept) {
    const TestFolder folder;
    write_text(folder / "file", "1");
    ASSERT_EQ(::chmod((folder / "file").c_str(), 0664), 0);
    const bool root = ::geteuid() == 0;
    if (root) {
        ASSERT_EQ(::chown((folder / "file").c_str(), 1234, 5678), 0);
    }
    write_text(folder / "file", "2");
    struct stat status{};
    ASSERT_EQ(::stat((folder / "file").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0664U);
    EXPECT_EQ(status.st_uid, root ? 1234U : ::geteuid());
    EXPECT_EQ(status.st_gid, root ? 5678U : ::getegid());
}

TEST(AtomicFile, other_hard_links_are_kept_of_outputs_that_the_user_named_alone) {
    const TestFolder folder;
    for (const char* name : {"named", "own"}) {
        write_text(folder / name, "old, and longer");
        std::filesystem::create_hard_link(folder / name, folder / (name + std::string("-too")));
    }
    check_output_file(folder / "named");
    write_text(folder / "named", "new");
    write_text(folder / "own", "new");
    EXPECT_EQ(read_text(folder / "named-too"), "new");
    EXPECT_EQ(read_text(folder / "own-too"), "old, and longer");
    EXPECT_EQ(folder.entries(), 4U);
}

TEST(AtomicFile, a_mount_point_is_overwritten) {
    const TestFolder folder;
    write_text(folder / "file", "old content");
    struct Busy {
        Busy() {
            file_faults::before_call = [](const char* call) {
                return std::string_view(call) == "rename" ? EBUSY : 0;
            };
        }
        ~Busy() { file_faults::before_call = nullptr; }
    } const busy;
    write_text(folder / "file", "new");
    EXPECT_EQ(read_text(folder / "file"), "new");
    EXPECT_EQ(folder.entries(), 1U);
}

TEST(AtomicFile, a_writable_file_in_a_folder_that_is_not_is_overwritten) {
    const TestFolder folder;
    write_text(folder / "file", "old content");
    struct ReadOnly {
        ReadOnly() {
            file_faults::before_call = [](const char* call) {
                return std::string_view(call) == "open" ? EROFS : 0;
            };
        }
        ~ReadOnly() { file_faults::before_call = nullptr; }
    } const read_only;
    {
        AtomicFile untouched(folder / "file");
    }
    EXPECT_EQ(read_text(folder / "file"), "old content");
    write_text(folder / "file", "new");
    EXPECT_EQ(read_text(folder / "file"), "new");
    expect_contains(error_of([&] { write_text(folder / "another", ""); }),
                    "is the folder writable?");
}

TEST(AtomicFile, a_pipe_is_written_into) {
    const TestFolder folder;
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    const std::string sent(300'000, 'x');  // more than a pipe holds
    std::string got;
    std::thread reader([&] {
        const int descriptor = ::open((folder / "pipe").c_str(), O_RDONLY);
        std::array<char, 4096> part{};
        for (ssize_t count = 0; (count = ::read(descriptor, part.data(), part.size())) > 0;)
            got.append(part.data(), static_cast<std::size_t>(count));
        ::close(descriptor);
    });
    write_text(folder / "pipe", sent);
    reader.join();
    EXPECT_EQ(got, sent);
    EXPECT_TRUE(std::filesystem::is_fifo(folder / "pipe"));
    EXPECT_EQ(folder.entries(), 1U);
}

TEST(AtomicFile, devices_are_written_into_and_their_errors_are_reported) {
    EXPECT_TRUE(is_stream("/dev/null"));
    write_text("/dev/null", "text");
    EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
    expect_contains(error_of([] { write_text("/dev/full", "text"); }),
                    "/dev/full: writing failed (No space left on device)");
}

TEST(AtomicFile, an_open_file_of_the_process_continues_at_its_position) {
    const TestFolder folder;
    const int descriptor = ::open((folder / "log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(::write(descriptor, "before ", 7), 7);
    write_text("/dev/fd/" + std::to_string(descriptor), "after");
    ::close(descriptor);
    EXPECT_EQ(read_text(folder / "log"), "before after");
}

TEST(AtomicFile, names_as_long_as_the_file_system_takes_are_written) {
    const TestFolder folder;
    for (const std::string& name : {std::string(255, 'x'), "x" + [] {
                                        std::string text;
                                        for (int i = 0; i < 127; ++i) text += "\xc3\xa9";
                                        return text;
                                    }()}) {
        write_text(folder / name, "1");
        EXPECT_EQ(read_text(folder / name), "1");
        std::filesystem::remove(folder / name);
        create_directory_atomically(folder / name, [](const auto&) {});
    }
    EXPECT_EQ(folder.entries(), 2U);
    expect_contains(error_of([&] { check_output_file(folder / std::string(256, 'x')); }),
                    "256 bytes long");
}

TEST(AtomicFile, unwritable_paths_are_known_beforehand) {
    const TestFolder folder;
    write_text(folder / "file", "");
    expect_contains(error_of([&] { check_output_file(folder.path()); }), "is a folder");
    expect_contains(error_of([&] { check_output_file(folder / "file/below/x"); }),
                    "is not a folder");
    expect_contains(error_of([&] { check_output_folder(folder / "file"); }), "exists already");
    check_output_file(folder / "new/folders/x");
    check_output_folder(folder / "new/folder/");
    EXPECT_EQ(folder.entries(), 1U);
    expect_contains(error_of([&] { AtomicFile file(folder.path()); }), "is a folder");
}

TEST(ReadText, refuses_what_is_not_a_regular_file) {
    const TestFolder folder;
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    std::filesystem::create_symlink(folder / "pipe", folder / "link");
    expect_contains(error_of([&] { read_text(folder / "pipe"); }), "not a regular file");
    expect_contains(error_of([&] { read_text(folder / "link"); }), "not a regular file");
    expect_contains(error_of([&] { read_text(folder.path()); }), "not a regular file");
    expect_contains(error_of([&] { read_text("/dev/zero"); }), "not a regular file");
    expect_contains(error_of([&] { read_text(folder / "missing"); }), "missing");
}

TEST(ReadText, refuses_a_file_that_is_too_large) {
    const TestFolder folder;
    write_text(folder / "file", "12345");
    EXPECT_EQ(read_text(folder / "file", 5), "12345");
    expect_contains(error_of([&] { read_text(folder / "file", 4); }), "at most 4");
}

TEST(CreateDirectory, appears_whole) {
    const TestFolder folder;
    create_directory_atomically(folder / "a/model/", [&](const auto& temporary) {
        EXPECT_FALSE(std::filesystem::exists(folder / "a/model"));
        write_text(temporary / "x", "1");
    });
    EXPECT_EQ(read_text(folder / "a/model/x"), "1");
    EXPECT_EQ(folder.entries(), 1U);
}

TEST(CreateDirectory, names_files_in_messages_as_they_would_be_called) {
    const TestFolder folder;
    const FaultAt full(1, ENOSPC);
    const std::string message = error_of([&] {
        create_directory_atomically(
            folder / "model", [](const auto& temporary) { write_text(temporary / "x", "1"); });
    });
    expect_contains(message, (folder / "model/x").string() + ": writing failed");
}

TEST(CreateDirectory, leaves_nothing_when_filling_fails) {
    const TestFolder folder;
    error_of([&] {
        create_directory_atomically(folder / "model", [](const auto& temporary) {
            write_text(temporary / "x", "1");
            fail("no");
        });
    });
    EXPECT_EQ(folder.entries(), 0U);
}

TEST(CreateDirectory, removes_what_a_killed_process_left_and_nothing_else) {
    const TestFolder folder;
    const pid_t killed = ::fork();
    if (killed == 0) {
        create_directory_atomically(folder / "model", [](const auto& temporary) {
            write_text(temporary / "x", "1");
            ::kill(::getpid(), SIGKILL);
        });
    }
    ::waitpid(killed, nullptr, 0);
    EXPECT_EQ(folder.entries(), 1U);
    const Temporary living = create_temporary_folder(folder / "model");
    for (const char* other : {".model.1.atelier.tmp", ".model.abcdefghij.tmp",
                              "model.abcdefghij.atelier.tmp", ".abcdefghij.atelier.tmp"})
        std::filesystem::create_directory(folder / other);
    create_directory_atomically(folder / "model",
                                [](const auto& temporary) { write_text(temporary / "x", "2"); });
    EXPECT_EQ(read_text(folder / "model/x"), "2");
    EXPECT_TRUE(std::filesystem::exists(living.path));
    EXPECT_EQ(folder.entries(), 6U);
    ::close(living.descriptor);
}

TEST(CreateDirectory, goes_through_a_link_that_leads_nowhere_yet) {
    const TestFolder folder;
    std::filesystem::create_symlink("real", folder / "link");
    create_directory_atomically(folder / "link",
                                [](const auto& temporary) { write_text(temporary / "x", "1"); });
    EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
    EXPECT_EQ(read_text(folder / "real/x"), "1");
}

TEST(CreateDirectory, refuses_a_path_that_exists) {
    const TestFolder folder;
    std::filesystem::create_directory(folder / "model");
    expect_contains(
        error_of([&] { create_directory_atomically(folder / "model", [](const auto&) {}); }),
        "exists already");
}

TEST(DirectoryLock, excludes_a_second_one_until_it_is_released) {
    const TestFolder folder;
    {
        const DirectoryLock lock(folder / "run");
        expect_contains(error_of([&] { DirectoryLock second(folder / "run"); }), "another process");
    }
    const DirectoryLock again(folder / "run");
}

TEST(DirectoryLock, dies_with_its_process) {
    const TestFolder folder;
    const pid_t child = ::fork();
    if (child == 0) {
        const DirectoryLock lock(folder.path());
        ::_exit(0);  // without the destructor
    }
    ::waitpid(child, nullptr, 0);
    const DirectoryLock lock(folder.path());
}

TEST(AddFilesAtomically, puts_files_into_a_folder_that_may_hold_others) {
    const TestFolder folder;
    write_text(folder / "out/kept", "kept");
    write_text(folder / "out/b", "old");
    add_files_atomically(folder / "out/", [&](const auto& temporary) {
        EXPECT_EQ(temporary.parent_path(), folder / "out");
        write_text(temporary / "a", "new a");
        write_text(temporary / "b", "new b");
        EXPECT_EQ(read_text(folder / "out/b"), "old") << "before all are written";
    });
    EXPECT_EQ(read_text(folder / "out/kept"), "kept");
    EXPECT_EQ(read_text(folder / "out/a"), "new a");
    EXPECT_EQ(read_text(folder / "out/b"), "new b");
    const auto begin = std::filesystem::directory_iterator(folder / "out");
    EXPECT_EQ(std::distance(begin, {}), 3);
}

TEST(AddFilesAtomically, leaves_nothing_behind_when_filling_fails) {
    const TestFolder folder;
    EXPECT_THROW(add_files_atomically(folder / "out",
                                      [&](const auto& temporary) {
                                          write_text(temporary / "a", "half");
                                          throw Error("stopped");
                                      }),
                 Error);
    EXPECT_TRUE(std::filesystem::is_empty(folder / "out"));
}

}  // namespace atelier::core
