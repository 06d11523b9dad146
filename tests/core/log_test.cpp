#include "atelier/core/log.h"

#include "core/test_folder.h"

#include <thread>
#include <vector>

#include "atelier/core/atomic_file.h"

namespace atelier::core {

TEST(Log, quiet_hides_information_but_no_warning) {
    ::testing::internal::CaptureStderr();
    log::info("step {}", 1);
    log::set_quiet(true);
    log::info("step {}", 2);
    log::warning("careful: {}", 3);
    log::set_quiet(false);
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "step 1\nwarning: careful: 3\n");
}

TEST(Log, a_file_gets_every_later_line_with_its_time) {
    const TestFolder folder;
    ::testing::internal::CaptureStderr();
    log::info("before");
    log::also_write_to((folder / "log.txt").string());
    log::info("during");
    log::warning("so");
    log::also_write_to("");
    log::info("after");
    ::testing::internal::GetCapturedStderr();
    const std::string text = read_text(folder / "log.txt");
    EXPECT_EQ(text.substr(19, 8), " during\n");
    EXPECT_EQ(text.substr(27 + 19), " warning: so\n");
}

TEST(Log, a_file_that_cannot_be_written_is_an_error) {
    expect_contains(error_of([] { log::also_write_to("/nowhere/log.txt"); }), "/nowhere/log.txt");
}

TEST(Log, lines_of_several_threads_stay_whole) {
    ::testing::internal::CaptureStderr();
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([] {
            for (int i = 0; i < 50; ++i) log::info("0123456789");
        });
    }
    for (auto& thread : threads) thread.join();
    std::string expected;
    for (int i = 0; i < 200; ++i) expected += "0123456789\n";
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), expected);
}

}  // namespace atelier::core
