#include "atelier/cli/prompt_hints.h"

#include <regex>

#include "atelier/core/log.h"

namespace atelier::cli {

namespace {

/// The first weight, "(cat:1.3)", or low-rank file, "<lora:x:1>", of a prompt; empty where there is
/// none.
std::string markup_in(const std::string& prompt) {
    constexpr std::size_t most = 4096;  // bytes that are looked at; std::regex recurses
    static const std::regex markup(
        R"(\([^()]{1,200}:\s*-?[0-9.]{1,20}\s*\)|<(lora|lyco|hypernet):[^<>]{1,200}>)",
        std::regex::icase);
    const std::string beginning = prompt.substr(0, most);
    std::smatch found;
    return std::regex_search(beginning, found, markup) ? found.str() : "";
}

}  // namespace

void hint_at_prompt(const std::string& option, const std::string& prompt,
                    const conditions::ClipTokenizer& tokenizer) {
    constexpr std::size_t most_shown = 300;  // bytes
    const std::string unread = tokenizer.unread(prompt);
    if (!unread.empty()) {
        std::size_t shown = std::min(unread.size(), most_shown);
        while (shown < unread.size() && (static_cast<unsigned char>(unread[shown]) & 0xc0) == 0x80)
            --shown;
        core::log::warning(
            "{}: the model reads {} tokens; what is beyond them changes nothing: \"{}{}\"", option,
            tokenizer.length() - 2, unread.substr(0, shown), shown < unread.size() ? "..." : "");
    }
    if (const std::string markup = markup_in(prompt); !markup.empty()) {
        core::log::info(
            "{}: \"{}\" is read like any other words; weights and low-rank files are not written "
            "into prompts here",
            option, markup);
    }
}

void LongPrompts::look_at(const std::string& prompt) {
    ++all_;
    if (tokenizer_.unread(prompt).empty()) return;
    if (++long_ == 1) first_ = all_;
}

void LongPrompts::tell(const std::string& where, const std::string& noun) const {
    if (long_ == 0) return;
    core::log::warning(
        "{}: {} of {} {} are longer than the {} tokens that are read, so that their ends change "
        "nothing; the first is number {}",
        where, long_, all_, noun, tokenizer_.length() - 2, first_);
}

}  // namespace atelier::cli
