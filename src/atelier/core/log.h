#pragma once

#include <string_view>

#include <fmt/format.h>

/// Lines for people on standard error; standard output stays free for results.
namespace atelier::core::log {

/// Hides info lines (warnings stay); `--quiet`.
void set_quiet(bool quiet);

/// Also appends every later line, with its time, to a file (a run's log.txt). An empty path ends
/// that. Throws Error when the file cannot be opened.
void also_write_to(std::string_view path);

void info_line(std::string_view text);
void warning_line(std::string_view text);

template <class... Args>
void info(fmt::format_string<Args...> text, Args&&... args) {
    info_line(fmt::format(text, std::forward<Args>(args)...));
}

template <class... Args>
void warning(fmt::format_string<Args...> text, Args&&... args) {
    warning_line(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace atelier::core::log
