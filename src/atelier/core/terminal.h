#pragma once

#include <string>
#include <string_view>

/// Standard error shared by log lines and one progress bar: every line is printed above the bar, never through it.
namespace atelier::core::terminal {

bool is_terminal();

/// Whether to colour: a terminal, and NO_COLOR (no-color.org) is not set.
bool has_colour();

/// Columns of the terminal, 80 when it does not say.
int width();

/// Prints a line; a bar on the screen is redrawn below it.
void print_line(std::string_view text);

/// Draws the bar over the former one. `text` must fit the width.
void show_bar(std::string text);
void clear_bar();

}  // namespace atelier::core::terminal
