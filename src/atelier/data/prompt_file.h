#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace atelier::data {

/// Prompts of a text file, one per line, read on request: the file may be larger than memory.
class PromptFile {
public:
    /// Throws core::Error when the file cannot be opened.
    explicit PromptFile(const std::string& path);

    /// The next prompt, without its line end; false at the end of the file. A byte order mark at
    /// the beginning is skipped. Throws core::Error naming the line when it is not UTF-8.
    bool next(std::string& prompt);

    std::int64_t line() const { return line_; }  // number of lines read

private:
    std::string path_;
    std::ifstream lines_;
    std::int64_t line_ = 0;
};

/// Number of prompts in a file.
std::int64_t count_prompts(const std::string& path);

}  // namespace atelier::data
