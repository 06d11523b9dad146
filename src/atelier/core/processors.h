#pragma once

#include <cstdint>
#include <filesystem>

namespace atelier::core {

/// The CPU quota of this process's control groups, in processors (1.5: one and a half); infinite
/// where none is set. It is the minimum over the process's own group and all its ancestors, of
/// cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us). `process` is its folder in procfs, which names
/// those groups and their mount points. What cannot be read sets no limit.
double processor_quota(const std::filesystem::path& process = "/proc/self");

/// Number of threads of this process that can run at the same time: the processors in its affinity
/// mask, at most its quota (rounded up), divided among those that share them, at least 1.
std::int64_t usable_processors();

/// From now on `processes` that belong together, this one among them, share its processors.
void share_processors(std::int64_t processes);

/// `requested` threads, or the number of usable processors where that is less or `requested` is 0.
/// Threads that wait for each other at every layer stall when they share processors. Logs a
/// reduction once per `name`, in one line: "threads = 16: ...".
std::int64_t threads_within(std::int64_t requested, const char* name);

}  // namespace atelier::core
