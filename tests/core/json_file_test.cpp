#include "atelier/core/json_file.h"

#include "core/test_folder.h"

#include <cmath>
#include <limits>

#include "atelier/core/atomic_file.h"

namespace atelier::core {

namespace {

std::string refusal(const std::string& text) {
    const std::string message = error_of([&] { parse_json(text, "x.json"); });
    EXPECT_TRUE(message.starts_with("x.json: ")) << message;
    EXPECT_LT(message.size(), 500U);
    return message;
}

const nlohmann::json sample = nlohmann::json::parse(
    R"({"n": 7, "x": 0.5, "t": "word", "l": [1, 2], "m": ["a", 1], "o": {"k": 3},
        "big": 18446744073709551615, "null": null})");

}  // namespace

TEST(JsonFile, values_of_every_kind_are_parsed) {
    const std::string text = R"({"a":[1,-2,3.5,true,false,null,"x\u00e4"],"b":{"c":{}},"d":[]})";
    EXPECT_EQ(parse_json(text, "x"), nlohmann::json::parse(text));
    EXPECT_EQ(parse_json("7", "x"), 7);
}

TEST(JsonFile, duplicate_keys_are_refused_but_equal_keys_of_different_objects_are_not) {
    expect_contains(refusal(R"({"a":{"b":1,"b":1}})"), "\"b\" appears twice");
    EXPECT_EQ(parse_json(R"({"a":{"b":1},"b":1})", "x").size(), 2U);
}

TEST(JsonFile, deep_nesting_is_refused_without_recursion) {
    const std::string deepest = std::string(64, '[') + std::string(64, ']');
    EXPECT_NO_THROW(parse_json(deepest, "x"));
    expect_contains(refusal("[" + deepest + "]"), "64 levels");
    expect_contains(refusal(std::string(1'000'000, '[')), "64 levels");
}

TEST(JsonFile, broken_text_is_refused_with_its_position) {
    expect_contains(refusal("{\n  \"a\": }"), "line 2");
    expect_contains(refusal("\"" + std::string(100'000, 'x')), "not valid JSON");
    refusal("");
    refusal("{} {}");
    refusal("\"\xc3\x28\"");
    refusal("1e999");
    refusal("NaN");
    refusal(std::string("1\0", 2));
}

TEST(JsonFile, files_may_hold_the_non_finite_literals_of_python_and_nothing_similar) {
    const TestFolder folder;
    const auto read = [&](const std::string& text) {
        write_text(folder / "x.json", text);
        return read_json(folder / "x.json");
    };
    const auto numbers = read(
        R"({"a": -Infinity, "b":[Infinity,NaN , 1], "c": "NaN, -Infinity", "d\"NaN": {"e":NaN}})");
    EXPECT_EQ(numbers["a"], -std::numeric_limits<double>::infinity());
    EXPECT_EQ(numbers["b"][0], std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isnan(numbers["b"][1].get<double>()));
    EXPECT_EQ(numbers["b"][2], 1);
    EXPECT_EQ(numbers["c"], "NaN, -Infinity");
    EXPECT_TRUE(std::isnan(numbers["d\"NaN"]["e"].get<double>()));
    EXPECT_TRUE(std::isinf(read("Infinity").get<double>()));
    for (const char* text : {"[inf]", "[nan]", "[+Infinity]", "[- Infinity]", "[Infinity1]",
                             "[NaNs]", "[--Infinity]", "{NaN: 1}", "{\"a\":1, NaN}", "[1 NaN]",
                             "[Infinity NaN]", "NaN NaN", "[\"\\u0000N\", NaN]"}) {
        error_of([&] { read(text); });
    }
    EXPECT_EQ(read("[\"\\u0000N\", \"NaN\"]")[0],
              std::string("\0N", 2));  // like a placeholder of a number
    refusal("[NaN]");                  // requests over HTTP are strict
}

TEST(JsonFile, what_is_written_is_read) {
    const TestFolder folder;
    write_json(folder / "a.json", sample);
    EXPECT_EQ(read_json(folder / "a.json"), sample);
    EXPECT_TRUE(read_text(folder / "a.json").ends_with("}\n"));
    write_json(folder / "b.json", "\xff");
    EXPECT_EQ(read_json(folder / "b.json"), "\xef\xbf\xbd");
    expect_contains(error_of([&] { read_json(folder / "c.json"); }), "c.json");
}

TEST(JsonObject, getters_return_what_is_there) {
    const JsonObject object(sample, "x.json");
    EXPECT_EQ(object.integer("n", 0, 10), 7);
    EXPECT_EQ(object.integer_or("absent", 3, 0, 10), 3);
    EXPECT_EQ(object.number("x", 0, 1), 0.5);
    EXPECT_EQ(object.number("n", 0, 10), 7.0);
    EXPECT_EQ(object.number_or("absent", 2.5, 0, 1), 2.5);
    EXPECT_EQ(object.text("t"), "word");
    EXPECT_EQ(object.text_or("absent", "other"), "other");
    EXPECT_EQ(object.integers("l", 0, 5), (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(object.numbers("l"), (std::vector<double>{1, 2}));
    EXPECT_EQ(object.object("o").integer("k", 0, 5), 3);
    EXPECT_TRUE(object.has("n"));
    EXPECT_FALSE(object.has("absent"));
}

TEST(JsonText, that_is_not_utf8_is_replaced) {
    EXPECT_EQ(json_text({{"name", "caf\xe9"}}), "{\"name\":\"caf\xef\xbf\xbd\"}");
    EXPECT_EQ(json_text("caf\xc3\xa9"), "\"caf\xc3\xa9\"");
}

TEST(JsonObject, getters_refuse_with_file_and_key) {
    const JsonObject object(sample, "x.json");
    EXPECT_EQ(error_of([&] { object.integer("absent", 0, 1); }), "x.json: \"absent\" is missing");
    EXPECT_EQ(error_of([&] { object.integer("n", 0, 5); }),
              "x.json: \"n\" is 7; it must be from 0 to 5");
    EXPECT_EQ(error_of([&] { object.integer("t", 0, 5); }),
              "x.json: \"t\" must be a whole number, not string");
    expect_contains(error_of([&] { object.integer("x", 0, 5); }), "whole number");
    expect_contains(error_of([&] { object.integer("big", INT64_MIN, INT64_MAX); }), "whole number");
    expect_contains(error_of([&] { object.number("x", 1, 5); }), "\"x\" is 0.5");
    expect_contains(error_of([&] { object.text("n"); }), "must be text");
    expect_contains(error_of([&] { object.text_or("null", "x"); }), "must be text");
    expect_contains(error_of([&] { object.texts("m"); }), "\"m\" must be text");
    expect_contains(error_of([&] { object.integers("l", 0, 1); }), "\"l\" is 2");
    expect_contains(error_of([&] { object.numbers("n"); }), "must be a list");
    expect_contains(error_of([&] { object.object("n"); }), "must be an object");
    EXPECT_EQ(error_of([&] { object.object("o").text("gone"); }), "x.json: o: \"gone\" is missing");
    const nlohmann::json list = nlohmann::json::array();
    EXPECT_EQ(error_of([&] { JsonObject(list, "x.json"); }),
              "x.json: must be a JSON object, not array");
}

}  // namespace atelier::core
