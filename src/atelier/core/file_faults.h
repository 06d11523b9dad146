#pragma once

/// Lets tests inject disk failures. Nothing outside tests sets it.
namespace atelier::core::file_faults {

/// A return value of `before_call`: `write` takes only one byte, as the kernel may.
inline constexpr int short_write = -1;

/// Called before every system call with which atomic_file.cpp changes the disk: 0 lets the call
/// happen, an errno makes it fail with that error.
inline int (*before_call)(const char* call) = nullptr;

}  // namespace atelier::core::file_faults
