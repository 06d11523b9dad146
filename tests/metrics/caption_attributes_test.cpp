#include "atelier/metrics/caption_attributes.h"

#include <gtest/gtest.h>

#include "atelier/core/json_file.h"
#include "core/test_folder.h"

namespace atelier::metrics {
namespace {

using core::error_of;
using core::expect_contains;
using core::TestFolder;

const std::vector<std::vector<std::string>> shoes{
    {"sandal", "open shoe"}, {"boot"}, {"ankle boot"}};

TEST(CaptionAttributes, phrases_are_whole_words_in_either_case) {
    EXPECT_EQ(class_of_phrases(shoes, "A Sandal on sand"), 0);
    EXPECT_EQ(class_of_phrases(shoes, "an open shoe."), 0);
    EXPECT_EQ(class_of_phrases(shoes, "sandals, booting, re-boot, \u00e4boot"), std::nullopt);
    EXPECT_EQ(class_of_phrases(shoes, ""), std::nullopt);
}

TEST(CaptionAttributes, the_longest_of_nested_phrases_counts) {
    EXPECT_EQ(class_of_phrases(shoes, "a black ankle boot"), 2);
    EXPECT_EQ(class_of_phrases(shoes, "a black boot"), 1);
}

TEST(CaptionAttributes, captions_of_several_values_mention_none) {
    EXPECT_EQ(class_of_phrases(shoes, "a sandal beside a boot"), std::nullopt);
    EXPECT_EQ(class_of_phrases(shoes, "a sandal, an open shoe"), 0);
}

class AttributesFile : public ::testing::Test {
protected:
    std::filesystem::path written(const nlohmann::json& json) {
        core::write_json(folder_ / "attributes.json", json);
        return folder_ / "attributes.json";
    }
    std::string problem(const nlohmann::json& attribute) {
        const auto file = written({{"attributes", {attribute}}});
        return error_of([&] { read_caption_attributes(file); });
    }
    TestFolder folder_;
    const nlohmann::json good_ =
        nlohmann::json::parse(R"({"name": "x", "classifier": "c", "values": [["a"], ["b"]]})");
};

TEST_F(AttributesFile, is_read_with_classifiers_relative_to_it) {
    const auto read = read_caption_attributes(written(
        {{"attributes",
          {{{"name", "colour"}, {"classifier", "c"}, {"values", {{"red", "Crimson"}, {"blue"}}}},
           {{"name", "kind"}, {"classifier", "/k"}, {"values", {{"cat"}, {"dog"}, {"fox"}}}}}}}));
    const auto& attributes = read.attributes;
    EXPECT_TRUE(read.paraphrases.empty());
    ASSERT_EQ(attributes.size(), 2U);
    EXPECT_EQ(attributes[0].classifier, folder_ / "c");
    EXPECT_EQ(attributes[1].classifier, "/k");
    EXPECT_EQ(attributes[0].classes, 2);
    EXPECT_EQ(attributes[0].class_in("a CRIMSON fox"), 0);
    EXPECT_EQ(attributes[1].class_in("a crimson fox"), 2);
}

TEST_F(AttributesFile, is_rejected_with_what_is_wrong) {
    read_caption_attributes(written({{"attributes", {good_}}}));
    const auto with = [&](const char* key, const char* value) {
        nlohmann::json other = good_;
        other[key] = nlohmann::json::parse(value);
        return problem(other);
    };
    expect_contains(with("values", R"([["a"], ["A"]])"), "the phrase \"a\" stands for two values");
    expect_contains(with("values", R"([["a"]])"), "one per class");
    expect_contains(with("values", R"([["a"], []])"), "value 1 must be a list");
    expect_contains(with("values", R"([["a"], [""]])"), "not empty");
    expect_contains(with("values", "3"), "attributes.json: attribute 0: \"values\"");
    expect_contains(with("name", R"("")"), "name");
    expect_contains(with("classifier", "1"), "classifier");
    const auto file = written({{"attributes", {good_, good_}}});
    expect_contains(error_of([&] { read_caption_attributes(file); }), "another's");
    const auto none = written({{"attributes", nlohmann::json::array()}});
    expect_contains(error_of([&] { read_caption_attributes(none); }), "1 to 100 attributes");
}

TEST_F(AttributesFile, may_name_paraphrases) {
    const auto problem_of = [&](const char* paraphrases) {
        const auto file =
            written({{"attributes", {good_}}, {"paraphrases", nlohmann::json::parse(paraphrases)}});
        return error_of([&] { read_caption_attributes(file); });
    };
    const auto groups =
        read_caption_attributes(
            written({{"attributes", {good_}},
                     {"paraphrases", {{"a red disc", "a crimson circle"}, {"x", "y", "z"}}}}))
            .paraphrases;
    ASSERT_EQ(groups.size(), 2U);
    EXPECT_EQ(groups[0], (std::vector<std::string>{"a red disc", "a crimson circle"}));
    EXPECT_EQ(groups[1].size(), 3U);
    for (const char* wrong : {"3", R"(["a", "b"])", R"([["a"]])", R"([["a", 1]])"})
        expect_contains(problem_of(wrong), "attributes.json: \"paraphrases\" must be a list");
}

TEST(CaptionAttributes, of_the_shipped_classifiers_are_read) {
    const std::filesystem::path file =
        ATELIER_SOURCE_DIR "/models/captions/classifiers/attributes.json";
    const auto [attributes, paraphrases] = read_caption_attributes(file);
    ASSERT_EQ(attributes.size(), 4U);
    for (const CaptionAttribute& attribute : attributes)
        EXPECT_TRUE(std::filesystem::exists(attribute.classifier / "config.json"))
            << attribute.name;
    const auto classes_of = [&attributes = attributes](std::string_view caption) {
        std::vector<std::optional<std::int64_t>> classes;
        for (const CaptionAttribute& attribute : attributes)
            classes.push_back(attribute.class_in(caption));
        return classes;
    };
    using Classes = std::vector<std::optional<std::int64_t>>;
    EXPECT_EQ(classes_of("a picture of two little black ankle boots at the left on a white "
                         "background"),
              (Classes{9, 2, 0, 1}));
    EXPECT_EQ(classes_of("a small white shirt on black"), (Classes{6, 1, std::nullopt, 0}));
    EXPECT_EQ(paraphrases.size(), 40U);  // with and without the place, of 20 scenes
}

}  // namespace
}  // namespace atelier::metrics
