#include "atelier/core/log.h"

#include <atomic>
#include <ctime>
#include <fstream>
#include <mutex>
#include <string>

#include "atelier/core/error.h"
#include "atelier/core/terminal.h"

namespace atelier::core::log {

namespace {

std::atomic<bool> quiet = false;
std::mutex file_mutex;
std::ofstream file;

std::string time_now() {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    ::localtime_r(&now, &local);
    char text[32];
    return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local)};
}

void append_to_file(std::string_view text) {
    const std::lock_guard lock(file_mutex);
    if (file.is_open()) file << time_now() << ' ' << text << std::endl;
}

}  // namespace

void set_quiet(bool now_quiet) { quiet = now_quiet; }

void also_write_to(std::string_view path) {
    const std::lock_guard lock(file_mutex);
    file.close();
    file.clear();
    if (path.empty()) return;
    file.open(std::string(path), std::ios::app);
    if (!file)
        fail("{}: the log cannot be written; check that the folder exists and is writable", path);
}

void info_line(std::string_view text) {
    append_to_file(text);
    if (!quiet) terminal::print_line(text);
}

void warning_line(std::string_view text) {
    append_to_file(fmt::format("warning: {}", text));
    const bool colour = terminal::has_colour();
    terminal::print_line(
        fmt::format("{}warning:{} {}", colour ? "\x1b[33m" : "", colour ? "\x1b[0m" : "", text));
}

}  // namespace atelier::core::log
