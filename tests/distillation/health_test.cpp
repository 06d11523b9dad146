#include "atelier/distillation/health.h"

#include <gtest/gtest.h>

namespace atelier::distillation {
namespace {

using Level = Finding::Level;
using Logged = std::vector<std::array<double, 2>>;

/// These values at steps 50, 100, ...
Logged every_50(std::initializer_list<double> values) {
    Logged logged;
    for (const double value : values)
        logged.push_back({50.0 * static_cast<double>(logged.size() + 1), value});
    return logged;
}

Finding judged(const Logged& losses, const Logged& distances = {}) {
    const auto findings = judge_teacher(losses, distances);
    return findings.empty() ? Finding{} : findings.front();
}

TEST(TeacherHealth, reports_nothing_if_nothing_was_logged) {
    EXPECT_TRUE(judge_teacher({}, {}).empty());
}

TEST(TeacherHealth, reports_a_training_that_diverged) {
    const Finding finding = judged(every_50({25141, 300, 40, 31, 29}));
    EXPECT_EQ(finding.level, Level::collapse);
    EXPECT_NE(finding.message.find("teacher.lr"), std::string::npos);
    EXPECT_EQ(judged(every_50({0.5, std::nan(""), std::nan(""), std::nan("")})).level,
              Level::collapse);
}

TEST(TeacherHealth, reports_a_teacher_that_has_learned_nothing) {
    EXPECT_EQ(judged(every_50({1.0, 1.01, 0.99, 1.0})).level, Level::warning);
}

TEST(TeacherHealth, uses_more_than_the_last_batch) {
    EXPECT_EQ(judged(every_50({0.4, 0.3, 0.3, 0.28, 0.3, 1.4})).level, Level::ok);
}

TEST(TeacherHealth, reports_samples_that_got_worse_and_those_still_improving) {
    const auto losses = every_50({0.5, 0.4, 0.3});
    const Finding worse = judged(losses, every_50({9, 3, 4}));
    EXPECT_EQ(worse.level, Level::warning);
    EXPECT_NE(worse.message.find("at step 100"), std::string::npos);
    const Finding better = judged(losses, every_50({9, 4, 3}));
    EXPECT_EQ(better.level, Level::ok);
    EXPECT_NE(better.message.find("more teacher.steps would help"), std::string::npos);
    const Finding settled = judged(losses, every_50({9, 3, 2.95}));
    EXPECT_EQ(settled.level, Level::ok);
    EXPECT_EQ(settled.message.find("would help"), std::string::npos);
}

}  // namespace
}  // namespace atelier::distillation
