#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace atelier::data {

/// Prompts of a text file, a line each, read as they are asked for: a file may be larger than memory.
class PromptFile {
public:
    /// Throws core::Error when there is no such file.
    explicit PromptFile(const std::string& path);

    /// The next prompt, without its line's end; false when there is none. A byte order mark at the
    /// beginning is no part of the first. Throws core::Error naming the line when it is not UTF-8.
    bool next(std::string& prompt);

    std::int64_t line() const { return line_; }  // how many were read

private:
    std::string path_;
    std::ifstream lines_;
    std::int64_t line_ = 0;
};

/// How many prompts a file has.
std::int64_t count_prompts(const std::string& path);

}  // namespace atelier::data
