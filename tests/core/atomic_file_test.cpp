#include "atelier/core/atomic_file.h"

#include "core/test_folder.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cerrno>
#include <filesystem>
#include <optional>

#include "atelier/core/file_faults.h"

namespace atelier::core {

namespace {

int calls_left = 0;     // how many system calls still succeed
int fault = 0;          // what happens then, once
int calls_counted = 0;  // how many there were

int fail_the_nth(const char*) {
    ++calls_counted;
    return calls_left-- == 0 ? fault : 0;
}

// Makes the n-th system call go wrong while it lives.
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

// Writes "new" over "old" with a fault at the n-th call; returns whether the write said it went well, nothing when there
// are not so many calls.
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
    expect_contains(error_of([&] { write_text(folder / "file/below", ""); }), (folder / "file").string());
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

TEST(CreateDirectory, puts_away_what_a_killed_process_left_and_nothing_else) {
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
    const std::string of_the_living = ".model." + std::to_string(::getppid()) + ".tmp";
    for (const std::string& other : {of_the_living, std::string(".model.x.tmp"), std::string(".models.1.tmp"), std::string("model.1.tmp")}) std::filesystem::create_directory(folder / other);
    create_directory_atomically(folder / "model", [](const auto& temporary) { write_text(temporary / "x", "2"); });
    EXPECT_EQ(read_text(folder / "model/x"), "2");
    EXPECT_EQ(folder.entries(), 5U);
}

TEST(CreateDirectory, refuses_a_path_that_exists) {
    const TestFolder folder;
    std::filesystem::create_directory(folder / "model");
    expect_contains(error_of([&] { create_directory_atomically(folder / "model", [](const auto&) {}); }), "exists already");
}

TEST(DirectoryLock, holds_off_a_second_one_until_it_goes) {
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

}  // namespace atelier::core
