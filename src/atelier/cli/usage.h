#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace atelier::cli {

/// The parser's dress: how --help shows options, what values they take, and how its errors are said.

/// Gives every command the checks that hold for all: numbers are whole where they must be and within their ranges (no value is
/// silently moved to the nearest that fits), names of files and models are not empty. Called when all commands are there.
void add_common_checks(CLI::App& app);

/// Shows ranges and defaults as people write them.
std::shared_ptr<CLI::FormatterBase> help_formatter();

/// What is wrong with the command line, in the program's own words.
std::string words_of(const CLI::ParseError& error, const CLI::App& app);

/// Seeds that all commands, servers and Python take.
CLI::Range seed_range();

}  // namespace atelier::cli
