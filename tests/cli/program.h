#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "atelier/cli/commands.h"

/// Runs the program's commands in the test's own process.
namespace atelier::cli {

struct Answer {
    int code;
    std::string out, error;
};

inline Answer atelier(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "atelier");
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = run_command_line(static_cast<int>(pointers.size()), pointers.data());
    const std::string out = testing::internal::GetCapturedStdout();
    return {code, out, testing::internal::GetCapturedStderr()};
}

}  // namespace atelier::cli
