#pragma once

#include <functional>
#include <string>
#include <vector>

namespace atelier::core {

/// After this, SIGINT and SIGTERM set a flag (asked with `stop_requested`) instead of ending the process; a second SIGINT ends
/// it at once.
void catch_stop_signals();
bool stop_requested();

/// stop_requested also asks `asked`, from whatever thread it is called on: for a program around this one that has signals of its own.
void also_ask_for_stop(bool (*asked)());

/// After so many seconds from now, stop_requested answers true, as if a signal had come.
void stop_after(double seconds);

/// After this, SIGHUP sets a flag instead of ending the process; `reload_requested` says whether one came since it was asked last.
void catch_reload_signal();
bool reload_requested();

/// Runs commands (each an argument vector; the first is the program's path), at most `at_once` together, their output passed
/// through. Every child gets SIGKILL when this process dies, and SIGTERM when a stop is requested. When one fails the others
/// are stopped and waited for. Throws Interrupted or Error naming the failed command.
void run_processes(const std::vector<std::vector<std::string>>& commands, int at_once);

}  // namespace atelier::core
