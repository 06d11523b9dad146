#pragma once

#include <string>

#include "atelier/conditions/clip_tokenizer.h"

namespace atelier::conditions {

/// Warns about the part of a prompt beyond the model's token limit, and notes markup (weights,
/// low-rank files) that other programs interpret but this one does not.
void warn_about_prompt(const std::string& option, const std::string& prompt,
                       const conditions::ClipTokenizer& tokenizer);

/// Counts the prompts that exceed the model's token limit.
class LongPrompts {
public:
    explicit LongPrompts(const conditions::ClipTokenizer& tokenizer) : tokenizer_(tokenizer) {}

    void add(const std::string& prompt);
    /// One warning, where there are any: of `noun` ("captions", "lines") in `where`.
    void warn(const std::string& where, const std::string& noun) const;

private:
    const conditions::ClipTokenizer& tokenizer_;
    std::int64_t total_ = 0, long_ = 0, first_ = 0;  // the last counted from 1
};

}  // namespace atelier::conditions
