#pragma once

#include <string>

#include "atelier/conditions/clip_tokenizer.h"

namespace atelier::cli {

/// Warns of the part of a prompt that is beyond the tokens which the model reads, and says so where
/// a prompt holds markup that other programs understand.
void hint_at_prompt(const std::string& option, const std::string& prompt,
                    const conditions::ClipTokenizer& tokenizer);

/// Counts, of many prompts, those that are longer than the model reads.
class LongPrompts {
public:
    explicit LongPrompts(const conditions::ClipTokenizer& tokenizer) : tokenizer_(tokenizer) {}

    void look_at(const std::string& prompt);
    /// One warning, where there are any: of `noun` ("captions", "lines") in `where`.
    void tell(const std::string& where, const std::string& noun) const;

private:
    const conditions::ClipTokenizer& tokenizer_;
    std::int64_t all_ = 0, long_ = 0, first_ = 0;  // the last counted from 1
};

}  // namespace atelier::cli
