#include "atelier/conditions/clip_tokenizer.h"

#include <algorithm>
#include <array>
#include <queue>

#include "atelier/conditions/unicode_text.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"

namespace atelier::conditions {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t largest_vocabulary = 4'000'000, largest_file = 64 << 20;

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
}

std::pair<std::string, std::string> halves(const std::string& line, const std::string& where) {
    const std::size_t space = line.find(' ');
    if (space == line.npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != line.npos) {
        core::fail("{}: a merge is two tokens with a space between, not \"{}\"", where,
                   line.substr(0, 100));
    }
    return {line.substr(0, space), line.substr(space + 1)};
}

/// A token in a config: text, or an object with "content".
std::string content_of(const nlohmann::json& token, const std::string& where) {
    if (token.is_string()) return token.get<std::string>();
    return core::JsonObject(token, where).text("content");
}

/// Length of the contraction that `text` begins with: 's 't 're 've 'm 'll 'd.
std::size_t contraction(std::u32string_view text) {
    for (const std::u32string_view known : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"}) {
        if (text.starts_with(known)) return known.size();
    }
    return 0;
}

/// Whether `text` begins with a special token that appeared only through lower-casing: it is
/// tokenised as ordinary text, in three words.
bool is_lowercased_special(std::u32string_view text) {
    return text.starts_with(U"<|startoftext|>") || text.starts_with(U"<|endoftext|>");
}

/// Length of the word that `text`, which does not begin with a space, begins with: a contraction,
/// letters, one digit, or a run of neither.
std::size_t word_length(std::u32string_view text) {
    if (const std::size_t length = contraction(text)) return length;
    if (is_number(text[0])) return 1;
    const auto other = [](char32_t c) { return !is_letter(c) && !is_number(c) && !is_space(c); };
    std::size_t length = 1;
    const bool letters = is_letter(text[0]);
    while (length < text.size() && (letters ? is_letter(text[length]) : other(text[length])))
        ++length;
    return length;
}

}  // namespace

std::string clip_byte_symbol(unsigned char byte) {
    static const auto letters = [] {
        std::array<char32_t, 256> all{};
        char32_t next = 256;
        for (int b = 0; b < 256; ++b) {
            const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            all[static_cast<std::size_t>(b)] = printable ? static_cast<char32_t>(b) : next++;
        }
        return all;
    }();
    return utf8(std::u32string_view(&letters[byte], 1));
}

std::vector<std::string> clip_words(std::string_view text) {
    const std::u32string points = normalised(text, "the text");
    const std::u32string_view all = points;
    std::vector<std::string> words;
    for (std::size_t i = 0; i < all.size();) {
        if (is_space(all[i])) {
            ++i;
            continue;
        }
        const std::size_t length = word_length(all.substr(i));
        words.push_back(utf8(all.substr(i, length)));
        i += length;
    }
    return words;
}

ClipTokenizer::ClipTokenizer(const fs::path& folder) {
    if (fs::exists(folder / "vocab.json")) read_pieces(folder);
    else if (fs::exists(folder / "tokenizer.json")) read_tokenizer_json(folder / "tokenizer.json");
    else
        core::fail(
            "{}: there is no tokenizer; it needs vocab.json and merges.txt, or tokenizer.json",
            folder.string());
    read_special_tokens(folder);
}

void ClipTokenizer::read_vocabulary(const nlohmann::json& vocabulary, const std::string& where) {
    const core::JsonObject object(vocabulary, where);
    if (vocabulary.empty() || vocabulary.size() > largest_vocabulary)
        core::fail("{}: holds {} tokens; a vocabulary has up to {}", where, vocabulary.size(),
                   largest_vocabulary);
    std::vector<bool> taken(vocabulary.size());
    for (const auto& [token, id] : vocabulary.items()) {
        const bool sound =
            id.is_number_integer() && (id.is_number_unsigned() || id.get<std::int64_t>() >= 0);
        if (!sound)
            core::fail("{}: \"{}\" has no id that is a whole number from 0", where,
                       token.substr(0, 100));
        const auto index = id.get<std::uint64_t>();
        if (index >= taken.size())
            core::fail("{}: has holes: there are {} tokens and \"{}\" has the id {}", where,
                       taken.size(), token.substr(0, 100), index);
        if (taken[index]) core::fail("{}: the id {} appears twice", where, index);
        taken[index] = true;
        ids_[token] = static_cast<std::int32_t>(index);
    }
}

std::int32_t ClipTokenizer::id_of(const std::string& token, const std::string& where) const {
    const auto found = ids_.find(token);
    if (found == ids_.end())
        core::fail("{}: has holes: there is no token \"{}\" in the vocabulary", where,
                   token.substr(0, 100));
    return found->second;
}

void ClipTokenizer::read_merges(const std::vector<std::pair<std::string, std::string>>& merges,
                                const std::string& where) {
    if (merges.size() > largest_vocabulary)
        core::fail("{}: holds {} merges; at most {} are read", where, merges.size(),
                   largest_vocabulary);
    std::int32_t rank = 0;
    for (const auto& [left, right] : merges) {
        const Merge merge{rank++, id_of(left + right, where)};
        merges_.insert_or_assign(pair_of(id_of(left, where), id_of(right, where)), merge);
    }
}

void ClipTokenizer::read_pieces(const fs::path& folder) {
    read_vocabulary(core::read_json(folder / "vocab.json"), (folder / "vocab.json").string());
    const fs::path file = folder / "merges.txt";
    const std::string text = core::read_text(file, largest_file);
    std::vector<std::pair<std::string, std::string>> merges;
    for (std::size_t from = 0; from < text.size();) {
        const std::size_t end = std::min(text.find('\n', from), text.size());
        std::string line = text.substr(from, end - from);
        if (line.ends_with('\r')) line.pop_back();
        if (!line.empty() && !(from == 0 && line.starts_with("#version")))
            merges.push_back(halves(line, file.string()));
        from = end + 1;
    }
    read_merges(merges, file.string());
    find_bytes((folder / "vocab.json").string());
}

void ClipTokenizer::read_tokenizer_json(const fs::path& file) {
    const nlohmann::json tokenizer = core::read_json(file);
    const core::JsonObject model = core::JsonObject(tokenizer, file.string()).object("model");
    if (model.text_or("type", "BPE") != "BPE" ||
        model.text_or("end_of_word_suffix", "") != clip_word_end) {
        core::fail("{}: is not CLIP's tokenizer: byte-pair encoding with end_of_word_suffix \"{}\"",
                   file.string(), clip_word_end);
    }
    read_vocabulary(model.object("vocab").json(), file.string());
    std::vector<std::pair<std::string, std::string>> merges;
    if (!model.has("merges") || !model.json().at("merges").is_array())
        core::fail("{}: \"merges\" must be a list", file.string());
    for (const auto& merge : model.json().at("merges")) {
        const bool two =
            merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
        if (!two && !merge.is_string()) core::fail("{}: a merge is two tokens", file.string());
        merges.push_back(two ? std::pair{merge[0].get<std::string>(), merge[1].get<std::string>()}
                             : halves(merge.get<std::string>(), file.string()));
    }
    read_merges(merges, file.string());
    find_bytes(file.string());
}

void ClipTokenizer::find_bytes(const std::string& where) {
    for (int byte = 0; byte < 256; ++byte) {
        bytes_[byte] = id_of(clip_byte_symbol(static_cast<unsigned char>(byte)), where);
        last_bytes_[byte] =
            id_of(clip_byte_symbol(static_cast<unsigned char>(byte)) + clip_word_end, where);
    }
}

void ClipTokenizer::add_special(const std::string& token, std::int64_t& id,
                                const std::string& where) {
    if (token.empty()) core::fail("{}: a special token is empty", where);
    id = id_of(token, where);
    if (std::ranges::none_of(special_, [&](const auto& known) { return known.first == token; }))
        special_.emplace_back(token, id);
}

void ClipTokenizer::read_special_tokens(const fs::path& folder) {
    std::string begin = "<|startoftext|>", end = "<|endoftext|>", pad = end, unknown = end,
                where = folder.string();
    // Configs that list their added tokens need no special_tokens_map.json; with older ones, the
    // map takes precedence.
    bool newer = false;
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
        const fs::path file = folder / name;
        if (newer || !fs::exists(file)) continue;
        where = file.string();
        const nlohmann::json config = core::read_json(file);
        const core::JsonObject object(config, where);
        newer = object.has("added_tokens_decoder");
        const auto read = [&](const char* key, std::string& token) {
            if (object.has(key) && !config.at(key).is_null())
                token = content_of(config.at(key), where + ": " + key);
        };
        read("bos_token", begin);
        read("eos_token", end);
        read("pad_token", pad);
        read("unk_token", unknown);
        constexpr double longest = 1e6;  // transformers writes 1e30 for no limit
        if (object.has("model_max_length") &&
            object.number("model_max_length", 2, 1e300) <= longest)
            length_ = object.integer("model_max_length", 2, 1'000'000);
    }
    add_special(begin, begin_, where);
    add_special(end, end_, where);
    add_special(pad, pad_, where);
    std::int64_t id = 0;
    add_special(unknown, id, where);
    std::ranges::stable_sort(special_, [](const auto& a, const auto& b) {
        return a.first.size() > b.first.size();
    });  // the longest match wins
}

void ClipTokenizer::encode_word(std::u32string_view word, std::vector<std::int64_t>& ids) const {
    struct Symbol {
        std::int32_t id, before, after;  // `id` is -1 once it is merged into its predecessor
    };
    const std::string bytes = utf8(word);
    std::vector<Symbol> symbols;
    const auto count = static_cast<std::int32_t>(bytes.size());
    for (std::int32_t i = 0; i < count; ++i) {
        const auto byte = static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
        symbols.push_back({i + 1 == count ? last_bytes_[byte] : bytes_[byte], i - 1,
                           i + 1 == count ? -1 : i + 1});
    }
    struct Candidate {
        std::int32_t rank, position, merged, right;
        bool operator>(const Candidate& other) const {
            return std::pair(rank, position) > std::pair(other.rank, other.position);
        }
    };
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto symbol = [&](std::int32_t i) -> Symbol& {
        return symbols[static_cast<std::size_t>(i)];
    };
    const auto consider = [&](std::int32_t i) {
        if (i < 0 || symbol(i).after < 0) return;
        const auto found = merges_.find(pair_of(symbol(i).id, symbol(symbol(i).after).id));
        if (found != merges_.end())
            queue.push({found->second.rank, i, found->second.merged, symbol(i).after});
    };
    for (std::int32_t i = 0; i + 1 < count; ++i) consider(i);
    while (!queue.empty()) {
        const Candidate best = queue.top();
        queue.pop();
        Symbol& left = symbol(best.position);
        if (left.id < 0 || left.after != best.right) continue;
        // Either half may have been merged since.
        const auto found = merges_.find(pair_of(left.id, symbol(best.right).id));
        if (found == merges_.end() || found->second.rank != best.rank) continue;
        left.id = best.merged;
        left.after = symbol(best.right).after;
        symbol(best.right).id = -1;
        if (left.after >= 0) symbol(left.after).before = best.position;
        consider(left.before);
        consider(best.position);
    }
    for (std::int32_t i = 0; i >= 0 && i < count; i = symbol(i).after) ids.push_back(symbol(i).id);
}

void ClipTokenizer::encode_plain(std::string_view text, std::int64_t most,
                                 std::vector<std::int64_t>& ids) const {
    const std::u32string points = normalised(text, "the prompt");
    const std::u32string_view all = points;
    for (std::size_t i = 0; i < all.size() && static_cast<std::int64_t>(ids.size()) < most;) {
        if (is_space(all[i])) {
            ++i;
            continue;
        }
        if (is_lowercased_special(all.substr(i))) {
            const std::size_t name = all.find(U'|', i + 2) - i - 2;
            for (const std::size_t length : {std::size_t{2}, name, std::size_t{2}})
                encode_word(all.substr(i, length), ids), i += length;
            continue;
        }
        const std::size_t length = word_length(all.substr(i));
        encode_word(all.substr(i, length), ids);
        i += length;
    }
}

/// Ids of the begin token and of complete words, until there are at least `most`.
std::vector<std::int64_t> ClipTokenizer::ids_of(std::string_view text, std::int64_t most) const {
    std::vector<std::int64_t> ids{begin_};
    while (!text.empty() && static_cast<std::int64_t>(ids.size()) <= most) {
        std::size_t nearest = text.size(), length = 0;
        std::int64_t id = 0;
        for (const auto& [token, token_id] : special_) {
            const std::size_t position =
                text.substr(0, std::min(text.size(), nearest + token.size())).find(token);
            if (position < nearest) nearest = position, length = token.size(), id = token_id;
        }
        encode_plain(text.substr(0, nearest), most, ids);
        if (length > 0) ids.push_back(id);
        text.remove_prefix(nearest + length);
    }
    return ids;
}

std::vector<std::int64_t> ClipTokenizer::encode(std::string_view text) const {
    code_points(text, "the prompt");
    std::vector<std::int64_t> ids = ids_of(text, length_ - 1);
    if (static_cast<std::int64_t>(ids.size()) > length_ - 1)
        ids.resize(static_cast<std::size_t>(length_ - 1));
    ids.push_back(end_);
    return ids;
}

std::string ClipTokenizer::truncated_tail(std::string_view text) const {
    code_points(text, "the prompt");
    const auto fits = [&](std::string_view part) {
        return static_cast<std::int64_t>(ids_of(part, length_).size()) <= length_ - 1;
    };
    if (fits(text)) return "";
    constexpr std::string_view spaces = " \t\r\n\v\f";
    std::vector<std::size_t> ends;  // of words; of characters where the first word is too long
    for (std::size_t i = 1; i < text.size(); ++i) {
        if (spaces.find(text[i]) != std::string_view::npos &&
            spaces.find(text[i - 1]) == std::string_view::npos)
            ends.push_back(i);
    }
    if (ends.empty() || !fits(text.substr(0, ends.front()))) {
        ends.clear();
        for (std::size_t i = 1; i < text.size(); ++i) {
            if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) ends.push_back(i);
        }
    }
    const auto first = std::ranges::partition_point(
        ends, [&](std::size_t end) { return fits(text.substr(0, end)); });
    const std::string_view rest = text.substr(first == ends.begin() ? 0 : *(first - 1));
    return std::string(rest.substr(std::min(rest.find_first_not_of(spaces), rest.size())));
}

std::vector<std::int64_t> ClipTokenizer::encode_padded(std::string_view text) const {
    std::vector<std::int64_t> ids = encode(text);
    ids.resize(static_cast<std::size_t>(length_), pad_);
    return ids;
}

}  // namespace atelier::conditions
