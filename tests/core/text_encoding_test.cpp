#include "atelier/core/text_encoding.h"

#include "core/test_folder.h"

namespace atelier::core {
namespace {

TEST(Utf8, is_distinguished_from_other_bytes) {
    for (const char* good : {"", "plain", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                             "\xef\xbb\xbf"
                             "x",
                             "\xf4\x8f\xbf\xbf"})
        EXPECT_FALSE(first_bad_byte(good)) << good;
    EXPECT_EQ(first_bad_byte("caf\xe9"), 3U);
    for (const char* bad :
         {"\x80", "\xc0\xaf", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff",
          "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xc3("})
        EXPECT_EQ(first_bad_byte(bad), 0U) << printable(bad);
}

TEST(Utf8, errors_name_the_position) {
    expect_contains(
        error_of([] { check_utf8("a caf\xe9 here", "p.txt:3"); }),
        "p.txt:3: is not UTF-8 (byte 5 is 0xe9: \"a caf\\xe9 here\"); save it as UTF-8");
    check_utf8("caf\xc3\xa9", "fine");
}

TEST(Utf8, byte_order_marks_are_no_part_of_a_text) {
    EXPECT_EQ(without_byte_order_mark("\xef\xbb\xbfhello", "x"), "hello");
    EXPECT_EQ(without_byte_order_mark("hello", "x"), "hello");
    for (const std::string_view other :
         {std::string_view("\xff\xfeh\0", 4), std::string_view("\xfe\xff\0h", 4)}) {
        expect_contains(error_of([&] { without_byte_order_mark(other, "x"); }), "x: is UTF-16");
    }
}

TEST(OlderEncodings, become_utf8) {
    EXPECT_EQ(from_latin1("caf\xe9"), "caf\xc3\xa9");
    EXPECT_EQ(from_cp437("caf\x82 \x9c \xe3 \xff"), "caf\xc3\xa9 \xc2\xa3 \xcf\x80 \xc2\xa0");
}

TEST(Printable, bytes_that_are_not_text_are_escaped) {
    EXPECT_EQ(printable("a\nb\xe9\x7f\xc3\xa9"), "a\\x0ab\\xe9\\x7f\xc3\xa9");
}

}  // namespace
}  // namespace atelier::core
