#include "atelier/core/pickle.h"

#include <gtest/gtest.h>

#include "core/test_folder.h"

namespace atelier::core {
namespace {

using namespace std::string_literals;

bool only_ordered(const std::string& global) { return global == "collections.OrderedDict"; }

Pickle read(const std::string& bytes) {
    return {std::as_bytes(std::span(bytes)), "x.pkl", only_ordered};
}

std::string pickle_refusal(const std::string& bytes) {
    return error_of([&] { read(bytes); });
}

TEST(Pickle, reads_numbers_texts_and_containers) {
    const std::string bytes =
        "\x80\x02}(X\x01\0\0\0aK\x07X\x01\0\0\0b]"
        "(J\xfe\xff\xff\xffG\x3f\xf8\0\0\0\0\0\0\x88NeX\x01\0\0\0c\x8a\x02\x00\xffu."s;
    const Pickle pickle = read(bytes);
    EXPECT_EQ(pickle.root()["a"].integer(), 7);
    const auto list = pickle.root()["b"].items();
    ASSERT_EQ(list.size(), 4U);
    EXPECT_EQ(list[0].integer(), -2);
    EXPECT_EQ(list[1].real(), 1.5);
    EXPECT_TRUE(list[2].is_number());
    EXPECT_TRUE(list[3].is_none());
    EXPECT_EQ(pickle.root()["c"].integer(), -256);
    EXPECT_TRUE(pickle.root()["d"].is_none());
    EXPECT_EQ(pickle.size(), bytes.size());
}

TEST(Pickle, calls_are_kept_as_data_and_may_be_filled_and_given_a_state) {
    const std::string bytes =
        "\x80\x02"
        "ccollections\nOrderedDict\n)Rq\0X\x01\0\0\0aK\x05s}b."s;
    const Pickle pickle = read(bytes);
    EXPECT_TRUE(pickle.root().is_call("collections.OrderedDict"));
    EXPECT_EQ(pickle.root()["a"].integer(), 5);
    EXPECT_TRUE(pickle.root().state().is_dict());
    EXPECT_EQ(pickle.calls("collections.OrderedDict").size(), 1U);
}

TEST(Pickle, globals_that_are_not_allowed_are_refused_by_name_before_anything_is_called) {
    expect_contains(pickle_refusal("\x80\x02"
                                   "cos\nsystem\nX\x04\0\0\0true\x85R."s),
                    "x.pkl: asks for \"os.system\"");
    expect_contains(pickle_refusal("\x80\x04\x8c\x05posix\x8c\x06system\x93."s),
                    "\"posix.system\"");
    expect_contains(pickle_refusal("cposix\nsystem\n"), "\"posix.system\"");
}

TEST(Pickle, broken_ones_are_one_error_each) {
    for (const std::string& bytes : {""s,
                                     "\x80"s,
                                     "]"s,
                                     "."s,
                                     "R."s,
                                     "a."s,
                                     "u."s,
                                     "t."s,
                                     "(."s,
                                     "h\x03."s,
                                     "q\0."s,
                                     "K\x01K\x02s."s,
                                     "K\x01}b."s,
                                     "(K\x01u."s,
                                     "X\xff\xff\xff\xff."s,
                                     "\x8d\xff\xff\xff\xff\xff\xff\xff\xff."s,
                                     "K\x01K\x02\x93."s,
                                     "\xff."s,
                                     "cos"s,
                                     "2."s,
                                     "}(K\x01u."s,
                                     "NQ"s}) {
        expect_contains(pickle_refusal(bytes), "x.pkl");
    }
}

TEST(Pickle, more_values_than_any_checkpoint_has_are_refused) {
    expect_contains(pickle_refusal(std::string(2'000'000, 'N')), "more than 1000000 values");
}

TEST(Pickle, nesting_without_end_is_harmless) {
    const Pickle pickle = read(")" + std::string(900'000, '\x85') + ".");
    EXPECT_TRUE(pickle.root().is_list());
}

TEST(PickleValue, of_another_kind_says_what_is_missing) {
    const std::string bytes = "K\x01.";
    const Pickle pickle = read(bytes);
    expect_contains(error_of([&] { pickle.root().text(); }), "x.pkl: there is no text");
    expect_contains(error_of([&] { pickle.root().items(); }), "list");
    expect_contains(error_of([&] { pickle.root()["a"]; }), "dictionary");
    expect_contains(error_of([&] { pickle.root().arguments(); }), "object");
    EXPECT_EQ(pickle.root().real(), 1.0);
}

}  // namespace
}  // namespace atelier::core
