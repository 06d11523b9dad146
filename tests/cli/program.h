#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "atelier/cli/commands.h"

/// The program's commands inside a test's own process.
namespace atelier::cli {

struct Answer {
    int code;
    std::string out, error;
};

inline Answer atelier(std::vector<std::string> words) {
    words.insert(words.begin(), "atelier");
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = run_command_line(static_cast<int>(pointers.size()), pointers.data());
    const std::string out = testing::internal::GetCapturedStdout();
    return {code, out, testing::internal::GetCapturedStderr()};
}

}  // namespace atelier::cli
