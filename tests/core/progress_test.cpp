#include "atelier/core/progress.h"

#include "core/test_folder.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <regex>
#include <thread>

#include "atelier/core/log.h"

namespace atelier::core {

namespace {

// A terminal in place of standard error; its output can be read.
class FakeTerminal {
public:
    explicit FakeTerminal(unsigned short columns)
        : former_(::dup(STDERR_FILENO)), master_(::posix_openpt(O_RDWR | O_NOCTTY)) {
        ::grantpt(master_);
        ::unlockpt(master_);
        const int slave = ::open(::ptsname(master_), O_RDWR | O_NOCTTY);
        const winsize size{24, columns, 0, 0};
        ::ioctl(slave, TIOCSWINSZ, &size);
        ::dup2(slave, STDERR_FILENO);
        ::close(slave);
    }
    ~FakeTerminal() {
        ::dup2(former_, STDERR_FILENO);
        ::close(former_);
        ::close(master_);
    }

    std::string drawn() const {
        std::string text;
        pollfd ready{master_, POLLIN, 0};
        while (::poll(&ready, 1, 20) == 1) {
            char piece[4096];
            const ssize_t got = ::read(master_, piece, sizeof piece);
            if (got <= 0) break;
            text.append(piece, static_cast<std::size_t>(got));
        }
        return text;
    }

private:
    int former_, master_;
};

constexpr const char* clear_line = "\r\x1b[K";

}  // namespace

TEST(Progress, draws_nothing_when_standard_error_is_no_terminal) {
    ::testing::internal::CaptureStderr();
    {
        Progress progress("training", 100, "steps");
        progress.update(50);
    }
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, shows_share_count_rate_time_left_and_note) {
    const FakeTerminal terminal(100);
    Progress progress("training", 1000, "steps", 500);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // or longer on a busy machine
    progress.update(600, "loss 0.5");
    const std::string line = terminal.drawn();
    expect_contains(line, "training  60% [");
    std::smatch found;
    ASSERT_TRUE(std::regex_search(
        line, found, std::regex("600/1000 steps, ([0-9.]+) steps/s, ([0-9]+) s left, loss 0.5")))
        << line;
    const double rate = std::stod(found[1]);  // of the 100 steps made here
    EXPECT_LE(rate, 1000);
    EXPECT_NEAR(std::stod(found[2]), 400 / rate, 1);
    EXPECT_LT(line.size(), 100 + std::string(clear_line).size());
}

TEST(Progress, fits_a_narrow_terminal) {
    const FakeTerminal terminal(20);
    Progress progress("a long label that does not fit", 1000, "steps");
    progress.update(1, "and a note");
    EXPECT_LE(terminal.drawn().size(), 19 + std::string(clear_line).size());
}

TEST(Progress, redraws_at_most_five_times_a_second) {
    const FakeTerminal terminal(80);
    Progress progress("x", 1000, "steps");
    for (int i = 0; i < 1000; ++i) progress.update(i);
    const std::string text = terminal.drawn();
    EXPECT_LE(std::ranges::count(text, '\r'), 2);
}

TEST(Progress, log_lines_stand_above_the_bar_and_the_end_clears_it) {
    const FakeTerminal terminal(80);
    {
        Progress progress("x", 10, "steps");
        progress.update(5);
        const std::string bar = terminal.drawn();
        log::info("a line");
        EXPECT_EQ(terminal.drawn(), std::string(clear_line) + "a line\r\n" +
                                        bar.substr(std::string(clear_line).size()));
    }
    EXPECT_EQ(terminal.drawn(), clear_line);
    log::info("later");
    EXPECT_EQ(terminal.drawn(), "later\r\n");
}

TEST(Progress, durations_are_formatted) {
    EXPECT_EQ(format_duration(0.4), "0 s");
    EXPECT_EQ(format_duration(75), "1 min 15 s");
    EXPECT_EQ(format_duration(4000), "1 h 06 min");
    EXPECT_EQ(format_duration(200000), "2 d 07 h");
    EXPECT_EQ(format_duration(-5), "0 s");
    expect_contains(format_duration(1e300), " d ");
}

}  // namespace atelier::core
