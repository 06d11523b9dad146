#pragma once

#include <functional>
#include <string>
#include <vector>

namespace atelier::core {

/// After this, SIGINT and SIGTERM set a flag (asked with `stop_requested`) instead of ending the process. A process that has not ended by itself some seconds later
/// (`end_after_stop`) is ended with exit code 130, and a second signal ends it immediately.
void catch_stop_signals();
bool stop_requested();

/// From now on a process that was told to stop has `seconds` to end by itself (0: as long as it takes) before it says `words`, which must outlive it, and ends.
/// Without: 3, "interrupted".
void end_after_stop(unsigned seconds, const char* words);

/// What a stage says that is given up half-way: its last checkpoint or finished part is on disk.
inline constexpr const char* resumable_words = "stopped; run the same command again to go on";

/// The stop was noticed and is being acted on (a checkpoint is written), which may take as long as it takes.
void stop_is_answered();

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
