#include "atelier/conditions/prompt_hints.h"

#include <regex>

#include "atelier/core/log.h"

namespace atelier::conditions {

namespace {

/// The first weight, "(cat:1.3)", or low-rank file, "<lora:x:1>", in a prompt; empty if none.
std::string markup_in(const std::string& prompt) {
    constexpr std::size_t most = 4096;  // bytes searched; std::regex recurses
    static const std::regex markup(
        R"(\([^()]{1,200}:\s*-?[0-9.]{1,20}\s*\)|<(lora|lyco|hypernet):[^<>]{1,200}>)",
        std::regex::icase);
    const std::string beginning = prompt.substr(0, most);
    std::smatch found;
    return std::regex_search(beginning, found, markup) ? found.str() : "";
}

}  // namespace

void warn_about_prompt(const std::string& option, const std::string& prompt,
                       const conditions::ClipTokenizer& tokenizer) {
    constexpr std::size_t most_shown = 300;  // bytes
    const std::string unread = tokenizer.truncated_tail(prompt);
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

void LongPrompts::add(const std::string& prompt) {
    ++total_;
    if (tokenizer_.truncated_tail(prompt).empty()) return;
    if (++long_ == 1) first_ = total_;
}

void LongPrompts::warn(const std::string& where, const std::string& noun) const {
    if (long_ == 0) return;
    core::log::warning(
        "{}: {} of {} {} are longer than the {} tokens that are read, so that their ends change "
        "nothing; the first is number {}",
        where, long_, total_, noun, tokenizer_.length() - 2, first_);
}

}  // namespace atelier::conditions
