#include "atelier/core/environment.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace atelier::core {
namespace {

TEST(Environment, a_variable_that_is_empty_counts_as_unset) {
    constexpr const char* name = "ATELIER_TEST_VARIABLE";
    ::unsetenv(name);
    EXPECT_EQ(environment(name), std::nullopt);
    ::setenv(name, "", 1);
    EXPECT_EQ(environment(name), std::nullopt);
    ::setenv(name, " a value", 1);
    EXPECT_EQ(environment(name), " a value");
    ::unsetenv(name);
}

TEST(Environment, the_host_has_the_name_that_the_system_gives_it) {
    std::array<char, 256> name{};
    ASSERT_EQ(::gethostname(name.data(), name.size() - 1), 0);
    EXPECT_EQ(host_name(), name.data());
}

}  // namespace
}  // namespace atelier::core
