#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::conditions {

/// What CLIP's tokens write at the end of a word, and a byte's letter in them (GPT-2's: printable Latin-1 stands for itself, others for letters from U+0100 on).
constexpr const char* clip_word_end = "</w>";
std::string clip_letter(unsigned char byte);

/// The words, in bytes, that CLIP's tokenizer sees in a text. Throws core::Error when it is not valid UTF-8.
std::vector<std::string> clip_words(std::string_view text);

/// CLIP's tokenizer (Radford et al. 2021): byte-level byte-pair encoding whose words end in "</w>", over text that is composed, in lower case and
/// has single spaces. The same ids as transformers' CLIPTokenizer.
class ClipTokenizer {
public:
    /// Reads a folder with vocab.json and merges.txt, or tokenizer.json; tokenizer_config.json and special_tokens_map.json, where they are, name the
    /// special tokens, the padding and the length. Throws core::Error naming the file when a file is missing or unsound: ids that are not 0..n-1 each
    /// once, merges of tokens that are none, a byte without a token.
    explicit ClipTokenizer(const std::filesystem::path& folder);

    /// Ids of a prompt: begin, at most length() - 2 tokens, end. Throws core::Error when `text` is not valid UTF-8.
    std::vector<std::int64_t> encode(std::string_view text) const;

    /// The end of `text` that `encode` leaves out, from the word on that is not read whole; "" where all of it is read. Throws as `encode` does.
    std::string unread(std::string_view text) const;

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
    void read_merges(const std::vector<std::pair<std::string, std::string>>& merges, const std::string& where);
    void read_pieces(const std::filesystem::path& folder);
    void read_tokenizer_json(const std::filesystem::path& file);
    void read_special_tokens(const std::filesystem::path& folder);
    void find_bytes(const std::string& where);
    void add_special(const std::string& token, std::int64_t& id, const std::string& where);

    std::int32_t id_of(const std::string& token, const std::string& where) const;
    std::vector<std::int64_t> ids_of(std::string_view text, std::int64_t most) const;
    void encode_plain(std::string_view text, std::int64_t most, std::vector<std::int64_t>& ids) const;
    void encode_word(std::u32string_view word, std::vector<std::int64_t>& ids) const;

    std::unordered_map<std::string, std::int32_t> ids_;
    std::unordered_map<std::uint64_t, Merge> merges_;  // by the two tokens
    std::int32_t bytes_[256]{}, last_bytes_[256]{};    // the token of a byte within a word, and of a word's last
    std::vector<std::pair<std::string, std::int64_t>> special_;  // what is taken as it stands, wherever it stands
    std::int64_t begin_ = 0, end_ = 0, pad_ = 0, length_ = 77;
};

}  // namespace atelier::conditions
