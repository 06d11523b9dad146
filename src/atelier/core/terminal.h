#pragma once

#include <string>
#include <string_view>

/// Standard error, shared by log lines and one progress bar: every line is printed above the bar.
namespace atelier::core::terminal {

bool is_terminal();

/// Whether to use colour: a terminal, and NO_COLOR (no-color.org) is not set.
bool has_colour();

/// Columns of the terminal; 80 when unknown.
int width();

/// From now on every line begins with `prefix` ("rank 1: "), and there is no bar and no colour:
/// this process is one of several that share a standard error.
void set_line_prefix(std::string prefix);
std::string line_prefix();

/// Prints a line and redraws the bar, if there is one, below it.
void print_line(std::string_view text);

/// Draws the bar in place of the previous one. `text` must fit the width.
void show_bar(std::string text);
void clear_bar();

}  // namespace atelier::core::terminal
