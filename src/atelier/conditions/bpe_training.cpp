#include "atelier/conditions/bpe_training.h"

#include <map>
#include <utility>
#include <vector>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/json_file.h"

namespace atelier::conditions {

namespace {

using Token = std::string;
using Pair = std::pair<Token, Token>;

struct Word {
    std::vector<Token> tokens;
    std::int64_t count = 0;
};

std::vector<Word> words_in(std::span<const std::string> texts) {
    std::map<std::string, std::int64_t> counts;
    for (const std::string& text : texts) {
        for (std::string& word : clip_words(text)) ++counts[std::move(word)];
    }
    std::vector<Word> words;
    for (const auto& [bytes, count] : counts) {
        Word word{{}, count};
        for (const char byte : bytes)
            word.tokens.push_back(clip_byte_symbol(static_cast<unsigned char>(byte)));
        word.tokens.back() += clip_word_end;
        words.push_back(std::move(word));
    }
    return words;
}

/// The most frequent pair, and its count.
std::pair<Pair, std::int64_t> most_frequent_pair(const std::vector<Word>& words) {
    std::map<Pair, std::int64_t> counts;
    for (const Word& word : words) {
        for (std::size_t i = 0; i + 1 < word.tokens.size(); ++i)
            counts[{word.tokens[i], word.tokens[i + 1]}] += word.count;
    }
    std::pair<Pair, std::int64_t> most{{}, 0};
    for (const auto& [pair, count] : counts) {
        if (count > most.second) most = {pair, count};
    }
    return most;
}

void join(Word& word, const Pair& pair) {
    std::vector<Token> joined;
    for (std::size_t i = 0; i < word.tokens.size(); ++i) {
        const bool both = i + 1 < word.tokens.size() && word.tokens[i] == pair.first &&
                          word.tokens[i + 1] == pair.second;
        joined.push_back(both ? pair.first + pair.second : word.tokens[i]);
        if (both) ++i;
    }
    word.tokens = std::move(joined);
}

}  // namespace

void write_learned_tokenizer(const std::filesystem::path& folder,
                             std::span<const std::string> texts, std::int64_t merges,
                             std::int64_t length) {
    nlohmann::json vocabulary = nlohmann::json::object();
    const auto add = [&](const Token& token) { vocabulary.emplace(token, vocabulary.size()); };
    for (int byte = 0; byte < 256; ++byte) add(clip_byte_symbol(static_cast<unsigned char>(byte)));
    for (int byte = 0; byte < 256; ++byte)
        add(clip_byte_symbol(static_cast<unsigned char>(byte)) + clip_word_end);
    std::vector<Word> words = words_in(texts);
    std::string lines = "#version: 0.2\n";
    for (std::int64_t i = 0; i < merges; ++i) {
        const auto [pair, count] = most_frequent_pair(words);
        if (count < 2) break;
        lines += pair.first + " " + pair.second + "\n";
        add(pair.first + pair.second);
        for (Word& word : words) join(word, pair);
    }
    const std::string begin = "<|startoftext|>", end = "<|endoftext|>";
    add(begin);
    add(end);
    core::write_json(folder / "vocab.json", vocabulary);
    core::write_text(folder / "merges.txt", lines);
    core::write_json(folder / "tokenizer_config.json", {{"tokenizer_class", "CLIPTokenizer"},
                                                        {"model_max_length", length},
                                                        {"bos_token", begin},
                                                        {"eos_token", end},
                                                        {"pad_token", end},
                                                        {"unk_token", end}});
}

}  // namespace atelier::conditions
