#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::conditions {

/// The suffix of CLIP tokens that end a word, and the character that stands for a byte in tokens
/// (as in GPT-2: printable Latin-1 bytes stand for themselves, others for characters from U+0100
/// on).
constexpr const char* clip_word_end = "</w>";
std::string clip_byte_symbol(unsigned char byte);

/// The words, as UTF-8, into which CLIP's tokenizer splits a text. Throws core::Error when the text
/// is not valid UTF-8.
std::vector<std::string> clip_words(std::string_view text);

/// CLIP's tokenizer (Radford et al. 2021): byte-level byte-pair encoding with the word suffix
/// "</w>", over text that is NFC-normalised, lower-cased and has single spaces. Gives the same ids
/// as transformers' CLIPTokenizer.
class ClipTokenizer {
public:
    /// Reads a folder with vocab.json and merges.txt, or tokenizer.json; tokenizer_config.json and
    /// special_tokens_map.json, where present, give the special tokens, the padding and the length.
    /// Throws core::Error naming the file when one is missing or inconsistent: ids that are not
    /// 0..n-1 once each, merges of unknown tokens, a byte without a token.
    explicit ClipTokenizer(const std::filesystem::path& folder);

    /// Ids of a prompt: begin, at most length() - 2 tokens, end. Throws core::Error when `text` is
    /// not valid UTF-8.
    std::vector<std::int64_t> encode(std::string_view text) const;

    /// The end of `text` that `encode` truncates, from the first word that does not fit completely;
    /// "" when all of it fits. Throws as `encode` does.
    std::string truncated_tail(std::string_view text) const;

    /// The same ids, padded to length().
    std::vector<std::int64_t> encode_padded(std::string_view text) const;

    std::int64_t length() const { return length_; }
    std::int64_t size() const { return static_cast<std::int64_t>(ids_.size()); }
    std::int64_t begin() const { return begin_; }
    std::int64_t end() const { return end_; }
    std::int64_t pad() const { return pad_; }

private:
    struct Merge {
        std::int32_t rank, merged;
    };

    void read_vocabulary(const nlohmann::json& vocabulary, const std::string& where);
    void read_merges(const std::vector<std::pair<std::string, std::string>>& merges,
                     const std::string& where);
    void read_pieces(const std::filesystem::path& folder);
    void read_tokenizer_json(const std::filesystem::path& file);
    void read_special_tokens(const std::filesystem::path& folder);
    void find_bytes(const std::string& where);
    void add_special(const std::string& token, std::int64_t& id, const std::string& where);

    std::int32_t id_of(const std::string& token, const std::string& where) const;
    std::vector<std::int64_t> ids_of(std::string_view text, std::int64_t most) const;
    void encode_plain(std::string_view text, std::int64_t most,
                      std::vector<std::int64_t>& ids) const;
    void encode_word(std::u32string_view word, std::vector<std::int64_t>& ids) const;

    std::unordered_map<std::string, std::int32_t> ids_;
    std::unordered_map<std::uint64_t, Merge> merges_;  // by the two tokens
    std::int32_t bytes_[256]{},
        last_bytes_[256]{};  // the token of a byte within a word, and at its end
    std::vector<std::pair<std::string, std::int64_t>>
        special_;  // matched verbatim, anywhere in a text
    std::int64_t begin_ = 0, end_ = 0, pad_ = 0, length_ = 77;
};

}  // namespace atelier::conditions
