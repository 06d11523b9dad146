#pragma once

#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace atelier::core {

/// The exception of the project: a one-line message with what went wrong, where, and how to fix it.
/// Ends the program with exit code 1.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// The command line or a config was wrong: exit code 2.
class UsageError : public Error {
public:
    using Error::Error;
};

/// SIGINT or SIGTERM arrived and the state is safe on disk: exit code 130.
class Interrupted : public Error {
public:
    using Error::Error;
};

/// Throws Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
    throw Error(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace atelier::core
