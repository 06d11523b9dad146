#include "atelier/data/prompt_file.h"

#include <filesystem>

#include "atelier/core/error.h"
#include "atelier/core/text_encoding.h"

namespace atelier::data {

PromptFile::PromptFile(const std::string& path) : path_(path), lines_(path) {
    if (!lines_ || std::filesystem::is_directory(path))
        core::fail("{}: cannot be read; it is a text file with one prompt per line", path);
}

bool PromptFile::next(std::string& prompt) {
    if (!std::getline(lines_, prompt)) return false;
    if (prompt.ends_with('\r')) prompt.pop_back();
    if (++line_ == 1) prompt = core::without_byte_order_mark(prompt, path_);
    if (core::first_bad_byte(prompt)) core::check_utf8(prompt, fmt::format("{}:{}", path_, line_));
    return true;
}

std::int64_t count_prompts(const std::string& path) {
    PromptFile file(path);
    for (std::string prompt; file.next(prompt);) {
    }
    return file.line();
}

}  // namespace atelier::data
