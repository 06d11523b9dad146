#include "atelier/core/whole_number.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace atelier::core {
namespace {

TEST(WholeNumber, is_all_of_the_text) {
    EXPECT_EQ(whole_number("0"), 0);
    EXPECT_EQ(whole_number("007"), 7);
    EXPECT_EQ(whole_number("-12"), -12);
    const std::string longer = "12345";
    EXPECT_EQ(whole_number(std::string_view(longer).substr(1, 3)), 234);
    for (const char* text : {"", "-", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "one", "1,2"})
        EXPECT_EQ(whole_number(text), std::nullopt) << text;
}

TEST(WholeNumber, is_nothing_where_it_does_not_fit) {
    const auto last = std::numeric_limits<std::int64_t>::max(),
               first = std::numeric_limits<std::int64_t>::min();
    EXPECT_EQ(whole_number(std::to_string(last)), last);
    EXPECT_EQ(whole_number(std::to_string(first)), first);
    EXPECT_EQ(whole_number("9223372036854775808"), std::nullopt);
    EXPECT_EQ(whole_number("-9223372036854775809"), std::nullopt);
}

}  // namespace
}  // namespace atelier::core
