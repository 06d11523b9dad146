#include "atelier/core/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>

#include "atelier/core/environment.h"

namespace atelier::core::terminal {

namespace {

constexpr std::string_view clear_line = "\r\x1b[K";

std::mutex mutex;
std::string bar;  // currently drawn; empty when there is none
std::string prefix;

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
}

}  // namespace

bool is_terminal() { return line_prefix().empty() && ::isatty(STDERR_FILENO) == 1; }

bool has_colour() { return is_terminal() && !environment("NO_COLOR"); }

int width() {
    winsize size{};
    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void set_line_prefix(std::string to) {
    const std::lock_guard lock(mutex);
    prefix = std::move(to);
}

std::string line_prefix() {
    const std::lock_guard lock(mutex);
    return prefix;
}

void print_line(std::string_view text) {
    const std::lock_guard lock(mutex);
    std::string out;
    if (!bar.empty()) out += clear_line;
    (out += prefix).append(text) += '\n';
    print(out + bar);
}

void show_bar(std::string text) {
    const std::lock_guard lock(mutex);
    bar = std::move(text);
    print(std::string(clear_line) + bar);
}

void clear_bar() {
    const std::lock_guard lock(mutex);
    if (!bar.empty()) print(std::string(clear_line));
    bar.clear();
}

}  // namespace atelier::core::terminal
