#pragma once

#include <cstdint>
#include <filesystem>

namespace atelier::core {

/// The processors' time that the control groups around a process allow it, in processors (1.5: one and a half); infinite where none is set. The least of the
/// process's own group and all groups around it counts, of cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us). `process` is its folder in procfs, which says which
/// groups those are and where they are mounted. What cannot be read sets no limit.
double processor_quota(const std::filesystem::path& process = "/proc/self");

/// How many threads of this process can run at the same time: the processors that its affinity names, no more than its quota (rounded up), at least 1.
std::int64_t usable_processors();

/// `wanted` threads, or as many as there are usable processors where that is less or `wanted` is 0. Threads that wait for each other at every layer come to a
/// standstill when they share processors. Says so once per `name`, in one line: "threads = 16: ...".
std::int64_t threads_within(std::int64_t wanted, const char* name);

}  // namespace atelier::core
