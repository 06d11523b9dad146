#pragma once

#include <functional>
#include <string>
#include <vector>

namespace atelier::core {

/// From now on SIGINT and SIGTERM set a flag (read by `stop_requested`) instead of ending the
/// process. A process that has not ended by itself some seconds later (`end_after_stop`) is ended
/// with exit code 130, and a second signal ends it immediately.
void catch_stop_signals();
bool stop_requested();

/// As if a stop signal had arrived, for one that another process received.
void request_stop();

/// From now on SIGUSR1 requests a stop too, with as much time as it takes: a batch system sends it
/// some minutes before a job's end (Slurm's --signal).
void stop_on_user_signal();

/// From now on, writing to a pipe or a socket whose other end is gone fails with EPIPE instead of
/// ending the process: libraries write to sockets of processes that may die (Gloo's other ranks).
void ignore_broken_pipes();

/// Sets the time in seconds that a process may take to end after a stop signal (0: unlimited). When
/// it is over, the process prints `message`, which must outlive it, and ends. Default: 3,
/// "interrupted".
void end_after_stop(unsigned seconds, const char* message);

/// The message of a stage that was interrupted: its last checkpoint or finished shard is on disk.
inline constexpr const char* resumable_message = "stopped; run the same command again to go on";

/// The stop request is being handled (a checkpoint is being written), which may take any time.
void acknowledge_stop();

/// stop_requested also calls `check`, on whatever thread it is called: for a host program that
/// handles signals itself.
void set_stop_check(bool (*check)());

/// From `seconds` from now on, stop_requested returns true, as if a signal had arrived.
void stop_after(double seconds);

/// From now on SIGHUP sets a flag instead of ending the process; `reload_requested` returns whether
/// one arrived since its last call.
void catch_reload_signal();
bool reload_requested();

/// Runs commands (each an argument vector; the first is the program's path), at most `max_parallel`
/// at a time, with their output passed through. Every child gets SIGKILL when this process dies,
/// and SIGTERM when a stop is requested. When one fails, the others are stopped and waited for.
/// Throws Interrupted, or Error naming the failed command.
void run_processes(const std::vector<std::vector<std::string>>& commands, int max_parallel);

}  // namespace atelier::core
