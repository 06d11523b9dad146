#pragma once

/// Lets tests make the disk fail. Nothing sets it outside tests.
namespace atelier::core::file_faults {

/// An answer of `before_call`: `write` takes one byte only, as the kernel may.
inline constexpr int short_write = -1;

/// Asked before every system call with which atomic_file.cpp changes the disk: 0 lets it happen, an errno makes it fail so.
inline int (*before_call)(const char* call) = nullptr;

}  // namespace atelier::core::file_faults
