#include "atelier/conditions/clip_tokenizer.h"

#include <fstream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/json_file.h"
#include "core/test_folder.h"

namespace atelier::conditions {

namespace {

namespace fs = std::filesystem;
using core::error_of;
using core::TestFolder;
using nlohmann::json;

const fs::path golden = fs::path(ATELIER_SOURCE_DIR) / "tests/golden/clip_tokenizer";

void copy(const TestFolder& to, const std::string& name) {
    fs::copy_file(golden / name, to / name);
}

void expect_answers(const ClipTokenizer& tokenizer, const char* which) {
    for (const json& answer : core::read_json(golden / "answers.json")) {
        EXPECT_EQ(tokenizer.encode_padded(answer.at("prompt").get<std::string>()),
                  answer.at(which).get<std::vector<std::int64_t>>())
            << answer.at("prompt");
    }
}

/// The error for a folder in which vocab.json was changed.
std::string error_of_vocabulary(const std::function<void(json&)>& change) {
    const TestFolder folder;
    copy(folder, "merges.txt");
    json vocabulary = core::read_json(golden / "vocab.json");
    change(vocabulary);
    core::write_text(folder / "vocab.json", vocabulary.dump());
    return error_of([&] { ClipTokenizer{folder.path()}; });
}

}  // namespace

TEST(ClipTokenizer, ids_are_those_of_transformers) {
    const TestFolder pieces, whole, exclamation;
    for (const char* name : {"vocab.json", "merges.txt"})
        copy(pieces, name), copy(exclamation, name);
    copy(whole, "tokenizer.json");
    core::write_text(exclamation / "special_tokens_map.json",
                     R"({"pad_token": {"content": "!", "special": true}})");
    expect_answers(ClipTokenizer{pieces.path()}, "endoftext");
    expect_answers(ClipTokenizer{whole.path()}, "endoftext");
    expect_answers(ClipTokenizer{exclamation.path()}, "exclamation");
}

TEST(ClipTokenizer, the_map_of_special_tokens_takes_precedence_unless_the_config_lists_them) {
    const TestFolder folder;
    for (const char* name : {"vocab.json", "merges.txt"}) copy(folder, name);
    core::write_text(folder / "special_tokens_map.json", R"({"pad_token": "!"})");
    const auto pad_with = [&](const char* config) {
        core::write_text(folder / "tokenizer_config.json", config);
        return ClipTokenizer{folder.path()}.encode_padded("").back();
    };
    EXPECT_EQ(pad_with(
                  R"({"pad_token": "<|endoftext|>", "model_max_length":
                1000000000000000019884624838656})"),
              0);
    EXPECT_EQ(pad_with(R"({"pad_token": "<|endoftext|>", "added_tokens_decoder": {}})"),
              ClipTokenizer{folder.path()}.end());
}

TEST(ClipTokenizer, an_empty_prompt_is_begin_and_end_and_a_long_one_is_cut) {
    const ClipTokenizer tokenizer(golden);
    EXPECT_EQ(tokenizer.encode(""), (std::vector{tokenizer.begin(), tokenizer.end()}));
    for (const std::string& piece : {std::string("a "), std::string("x"), std::string("a!"),
                                     std::string("\u0301"), std::string("<|endoftext|>")}) {
        std::string text;
        while (text.size() < 100'000) text += piece;
        const auto ids = tokenizer.encode(text);
        EXPECT_EQ(ids.size(), 77u);
        EXPECT_EQ(ids.front(), tokenizer.begin());
        EXPECT_EQ(ids.back(), tokenizer.end());
    }
}

TEST(ClipTokenizer, the_truncated_tail_is_in_the_words_of_the_prompt) {
    const TestFolder folder;
    for (const char* name : {"vocab.json", "merges.txt"}) copy(folder, name);
    core::write_text(folder / "tokenizer_config.json", R"({"model_max_length": 8})");
    const ClipTokenizer tokenizer(folder.path());
    for (const std::string text : {"", "  ", "a b c d e f", "A, B. c", "a b c d e f  \n"})
        EXPECT_EQ(tokenizer.truncated_tail(text), "") << text;
    EXPECT_EQ(tokenizer.truncated_tail("a b c d e f G h"), "G h");
    EXPECT_EQ(tokenizer.truncated_tail("a  b\nc d e f\u00c9 g"), "f\u00c9 g")
        << "a word of which not all is read is named whole";
    const std::string endless(100, 'q');
    const std::string rest = tokenizer.truncated_tail(endless);
    EXPECT_TRUE(rest.size() > 0 && rest.size() < endless.size());
    for (const std::string& text :
         {std::string("a b c d e f G h"), endless, "a b c d e f " + endless,
          std::string("\u4e2d\u6587 \U0001f45c \U0001f45c \U0001f45c a b c")}) {
        const std::string left_out = tokenizer.truncated_tail(text);
        ASSERT_TRUE(text.ends_with(left_out));
        EXPECT_EQ(tokenizer.truncated_tail(text.substr(0, text.size() - left_out.size())), "")
            << text;
        EXPECT_NE(left_out, "") << text;
    }
    EXPECT_THROW(tokenizer.truncated_tail("\xff"), core::Error);
}

TEST(ClipTokenizer, invalid_utf8_is_one_clear_error) {
    const ClipTokenizer tokenizer(golden);
    for (const char* text : {"caf\xe9", "\xff", "\xed\xa0\x80", "\xc0\xaf", "ok \xf0\x9f\x98"}) {
        EXPECT_NE(error_of([&] { tokenizer.encode(text); }).find("not valid UTF-8 at byte"),
                  std::string::npos)
            << text;
    }
}

TEST(ClipTokenizer, an_inconsistent_vocabulary_is_one_error_that_names_the_file) {
    const auto expect_said = [](const std::string& message, const std::string& part) {
        EXPECT_NE(message.find(part), std::string::npos) << message;
        EXPECT_EQ(message.find('\n'), std::string::npos);
    };
    expect_said(error_of_vocabulary([](json& v) { v["a"] = 5'000'000; }), "vocab.json: has holes");
    expect_said(error_of_vocabulary([](json& v) { v["a"] = v["b"]; }), "vocab.json: the id");
    expect_said(error_of_vocabulary([](json& v) { v["a"] = -1; }), "whole number");
    expect_said(error_of_vocabulary([](json& v) { v["a"] = "1"; }), "whole number");
    expect_said(error_of_vocabulary([](json& v) { v["new"] = v["th"], v.erase("th"); }),
                "merges.txt: has holes");
    expect_said(error_of_vocabulary(
                    [](json& v) { v["new"] = v["<|endoftext|>"], v.erase("<|endoftext|>"); }),
                "no token \"<|endoftext|>\"");
    expect_said(
        error_of([] { ClipTokenizer{fs::temp_directory_path() / "there is no such folder"}; }),
        "there is no tokenizer");
}

}  // namespace atelier::conditions
