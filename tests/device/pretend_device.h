#pragma once

#include <cstdint>
#include <map>
#include <string>

/// An accelerator that is pretended: `device = "pretend"`, or "pretend:0" and "pretend:1".
///
/// Its tensors lie in host memory, but LibTorch treats them as another device's: autograd runs on
/// threads of its own, autocast has CUDA's lists, and an operation that mixes them with tensors of
/// the CPU or of the other index fails where it would on CUDA. It counts what would cost time on a
/// GPU, and the bytes that it holds. It says nothing about speed, and nothing about the bits that a
/// GPU's kernels compute.
///
/// Loading the library registers the device, so LD_PRELOAD gives it to any LibTorch program;
/// PRETEND_COUNTS=file then writes the counts there when the program ends.
namespace atelier::pretend {

struct Counts {
    std::map<std::string, std::int64_t> operations;  // by name: what would be launched
    std::map<std::string, std::int64_t> waits;       // by reason: what the host would wait for
    std::int64_t copies_to_device = 0, copies_to_host = 0;
    std::int64_t bytes_to_device = 0, bytes_to_host = 0;

    /// Of all names.
    std::int64_t launched() const;
    std::int64_t waited() const;
    /// The waits, and the most frequent operations, one a line.
    std::string description() const;
};

/// What happened since the last reset(), on all threads.
Counts counts();
void reset();

/// Bytes of the device's tensors, each rounded up to 512 as by CUDA's allocator: now, and at most
/// since the last reset().
std::int64_t bytes_held();
std::int64_t peak_bytes();

/// From now on the device has so much memory, and allocations beyond it throw
/// c10::OutOfMemoryError; 0: no limit, and not known.
void limit_memory(std::int64_t bytes);

}  // namespace atelier::pretend
