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
};

TEST_F(AttributesFile, is_read_with_classifiers_relative_to_it) {
    const auto attributes = read_caption_attributes(written(
        {{"attributes",
          {{{"name", "colour"}, {"classifier", "c"}, {"values", {{"red", "Crimson"}, {"blue"}}}},
           {{"name", "kind"}, {"classifier", "/k"}, {"values", {{"cat"}, {"dog"}, {"fox"}}}}}}}));
    ASSERT_EQ(attributes.size(), 2U);
    EXPECT_EQ(attributes[0].classifier, folder_ / "c");
    EXPECT_EQ(attributes[1].classifier, "/k");
    EXPECT_EQ(attributes[0].classes, 2);
    EXPECT_EQ(attributes[0].class_in("a CRIMSON fox"), 0);
    EXPECT_EQ(attributes[1].class_in("a crimson fox"), 2);
}

TEST_F(AttributesFile, is_rejected_with_what_is_wrong) {
    const auto good =
        nlohmann::json::parse(R"({"name": "x", "classifier": "c", "values": [["a"], ["b"]]})");
    read_caption_attributes(written({{"attributes", {good}}}));
    const auto with = [&](const char* key, const char* value) {
        nlohmann::json other = good;
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
    const auto file = written({{"attributes", {good, good}}});
    expect_contains(error_of([&] { read_caption_attributes(file); }), "another's");
    const auto none = written({{"attributes", nlohmann::json::array()}});
    expect_contains(error_of([&] { read_caption_attributes(none); }), "1 to 100 attributes");
}

TEST(CaptionAttributes, of_composed_images_have_a_classifier_each) {
    const auto attributes = composed_attributes("models/captions");
    ASSERT_EQ(attributes.size(), 4U);
    EXPECT_EQ(attributes[0].name, "garment");
    EXPECT_EQ(attributes[0].classifier, "models/captions/garment");
    EXPECT_EQ(attributes[0].class_in("a large white ankle boot on black"), 9);
}

}  // namespace
}  // namespace atelier::metrics
