#include "atelier/conditions/bpe_training.h"

#include <gtest/gtest.h>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/core/atomic_file.h"
#include "core/test_folder.h"

namespace atelier::conditions {
namespace {

const std::vector<std::string> texts{"low low low low low", "lower lower",
                                     "newest newest newest newest newest newest",
                                     "widest widest widest"};

class LearnedTokenizer : public testing::Test {
protected:
    ClipTokenizer learned(std::int64_t merges, std::int64_t length = 16) {
        std::filesystem::create_directories(folder_ / "tokenizer");
        write_learned_tokenizer(folder_ / "tokenizer", texts, merges, length);
        return ClipTokenizer(folder_ / "tokenizer");
    }
    std::string merges() const { return core::read_text(folder_ / "tokenizer" / "merges.txt"); }

    core::TestFolder folder_;
};

TEST_F(LearnedTokenizer, merges_the_most_frequent_pairs_first) {
    learned(3);
    // Sennrich et al.'s example: nine words end in "est".
    EXPECT_EQ(merges(), "#version: 0.2\ne s\nes t</w>\nl o\n");
}

TEST_F(LearnedTokenizer, words_that_were_often_seen_become_one_token) {
    const ClipTokenizer tokenizer = learned(100);
    EXPECT_EQ(tokenizer.encode("newest low").size(), 4);  // with begin and end
    EXPECT_EQ(tokenizer.encode("newest low"), tokenizer.encode("NEWEST  low"));
}

TEST_F(LearnedTokenizer, any_text_can_be_encoded_in_bytes) {
    const ClipTokenizer tokenizer = learned(10);
    EXPECT_NE(tokenizer.encode("žluťoučký 🐎"), tokenizer.encode("zlutoucky 🐎"));
    EXPECT_EQ(
        tokenizer.encode_padded("a very long text with many words that were never seen before")
            .size(),
        16);
}

TEST_F(LearnedTokenizer, stops_where_no_pair_occurs_twice) {
    const ClipTokenizer tokenizer = learned(1'000'000);
    EXPECT_LT(tokenizer.size(), 512 + 40);
}

TEST_F(LearnedTokenizer, is_the_same_every_time) {
    learned(12);
    const std::string first = merges();
    learned(12);
    EXPECT_EQ(merges(), first);
}

}  // namespace
}  // namespace atelier::conditions
