#include "atelier/conditions/class_names.h"

#include <gtest/gtest.h>

#include "atelier/core/error.h"

namespace atelier::conditions {
namespace {

const std::vector<std::string> names{"red", "Green", "7up", "1"};

TEST(ClassNames, a_name_in_any_case_comes_before_an_id) {
    EXPECT_EQ(parse_class("RED", names, 4), 0);
    EXPECT_EQ(parse_class("green", names, 4), 1);
    EXPECT_EQ(parse_class("1", names, 4), 3);
    EXPECT_EQ(parse_class("2", names, 4), 2);
    EXPECT_EQ(parse_class("5", {}, 6), 5) << "data without names";
}

TEST(ClassNames, what_is_neither_is_refused_with_what_is_known) {
    for (const char* word : {"grean", "4", "-1", "", "2 ", "99999999999999999999"}) {
        try {
            parse_class(word, names, 4);
            FAIL() << word;
        } catch (const core::UsageError& error) {
            EXPECT_NE(std::string(error.what()).find("0 to 3, or its name (red, Green, 7up, 1)"),
                      std::string::npos)
                << error.what();
            if (std::string(word) == "grean") {
                EXPECT_NE(std::string(error.what()).find("did you mean \"Green\"?"),
                          std::string::npos)
                    << error.what();
            }
        }
    }
}

}  // namespace
}  // namespace atelier::conditions
