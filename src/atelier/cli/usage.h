#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace atelier::cli {

/// Option checks, --help formatting and error messages of the command line.

/// Adds the checks common to all commands: integers are integers, numbers are within their ranges
/// (nothing is silently clamped), names of files and models are not empty. Must be called after all
/// commands are added.
void add_common_checks(CLI::App& app);

/// A formatter that shows ranges and defaults in readable form.
std::shared_ptr<CLI::FormatterBase> help_formatter();

/// The error message for an invalid command line.
std::string parse_error_message(const CLI::ParseError& error, const CLI::App& app);

/// Adds --shard, whose text core::shard_of parses: a part of `what`.
void add_shard_option(CLI::App& command, std::string& shard, const std::string& what);

/// The range of seeds accepted by all commands, the server and Python.
CLI::Range seed_range();

}  // namespace atelier::cli
