#include "atelier/distillation/health.h"

#include <gtest/gtest.h>

namespace atelier::distillation {
namespace {

using Level = Finding::Level;
using Logged = std::vector<std::array<double, 2>>;

/// Steps 50, 100, ... with those values.
Logged every_50(std::initializer_list<double> values) {
    Logged logged;
    for (const double value : values) logged.push_back({50.0 * static_cast<double>(logged.size() + 1), value});
    return logged;
}

Finding judged(const Logged& losses, const Logged& distances = {}) {
    const auto findings = judge_teacher(losses, distances);
    return findings.empty() ? Finding{} : findings.front();
}

TEST(TeacherHealth, says_nothing_of_what_was_not_logged) { EXPECT_TRUE(judge_teacher({}, {}).empty()); }

TEST(TeacherHealth, tells_a_training_that_ran_away) {
    const Finding finding = judged(every_50({25141, 300, 40, 31, 29}));
    EXPECT_EQ(finding.level, Level::collapse);
    EXPECT_NE(finding.words.find("teacher.lr"), std::string::npos);
    EXPECT_EQ(judged(every_50({0.5, std::nan(""), std::nan(""), std::nan("")})).level, Level::collapse);
}

TEST(TeacherHealth, tells_a_teacher_that_has_learned_nothing) { EXPECT_EQ(judged(every_50({1.0, 1.01, 0.99, 1.0})).level, Level::warning); }

TEST(TeacherHealth, looks_at_more_than_the_last_batch) { EXPECT_EQ(judged(every_50({0.4, 0.3, 0.3, 0.28, 0.3, 1.4})).level, Level::ok); }

TEST(TeacherHealth, tells_samples_that_got_worse_and_those_that_still_get_better) {
    const auto losses = every_50({0.5, 0.4, 0.3});
    const Finding worse = judged(losses, every_50({9, 3, 4}));
    EXPECT_EQ(worse.level, Level::warning);
    EXPECT_NE(worse.words.find("at step 100"), std::string::npos);
    const Finding better = judged(losses, every_50({9, 4, 3}));
    EXPECT_EQ(better.level, Level::ok);
    EXPECT_NE(better.words.find("more teacher.steps would help"), std::string::npos);
    const Finding settled = judged(losses, every_50({9, 3, 2.95}));
    EXPECT_EQ(settled.level, Level::ok);
    EXPECT_EQ(settled.words.find("would help"), std::string::npos);
}

}  // namespace
}  // namespace atelier::distillation
