#include "atelier/planning/evidence.h"

#include <gtest/gtest.h>

#include "atelier/core/json_file.h"
#include "core/test_folder.h"

namespace atelier::planning {

namespace {

using nlohmann::json;

/// Four students are better in each of three seeds.
json rings() {
    return {{"set", "rings"},
            {"samples", "points"},
            {"measure", "strays %"},
            {"width", 8},
            {"teacher_width", 64},
            {"samples_per_condition", 200'000},
            {"values", {{"1", {1.5, 2.0, 1.0}}, {"4", {1.0, 0.5, 0.9}}}},
            {"batch", {{"1", 256}, {"4", 64}}}};
}

Evidence evidence_of(const std::vector<json>& trials) {
    return evidence_from_json({{"trials", trials}}, "trials.json");
}

Situation near_rings() {
    return {.samples = "points",
            .relative_width = 0.125,
            .samples_per_condition = 250'000,
            .students = {1, 2, 4}};
}

std::string reasons_of(const Verdict& verdict) {
    std::string text;
    for (const std::string& reason : verdict.reasons) text += reason + "\n";
    return text;
}

}  // namespace

TEST(Evidence, near_the_situation_names_the_best_number_and_its_batch) {
    const Verdict verdict = judge(evidence_of({rings()}), near_rings());
    EXPECT_EQ(verdict.students, 4);
    EXPECT_EQ(verdict.batch, 64);
    core::expect_contains(reasons_of(verdict),
                          "rings, students 8 wide of a teacher's 64, 200 k samples per condition: "
                          "strays % K=1 1.5 (1 to 2 in 3 seeds), K=4 0.8 (0.5 to 1 in 3 seeds); "
                          "K=4 is lower than K=1 in 3 of 3 seeds");
    EXPECT_EQ(verdict.reasons.size(), 1U);
    json single = rings();
    single["values"] = {{"1", {0.5}}, {"4", {0.6}}};
    EXPECT_EQ(judge(evidence_of({single}), near_rings()).students, 1);
}

TEST(Evidence, elsewhere_is_said_to_be_elsewhere_and_decides_nothing) {
    const auto verdict_at = [&](const Situation& situation) {
        return judge(evidence_of({rings()}), situation);
    };
    Situation situation = near_rings();
    for (const auto& [samples, students] :
         {std::pair{99'000.0, 0}, {101'000.0, 4}, {399'000.0, 4}, {401'000.0, 0}}) {
        situation.samples_per_condition = samples;
        EXPECT_EQ(verdict_at(situation).students.value_or(0), students) << samples;
    }
    core::expect_contains(reasons_of(verdict_at(situation)),
                          "trials.json has no trials near 401 k samples per condition and 0.125 of "
                          "the teacher's width; the nearest, rings");
    situation = near_rings();
    for (const auto& [width, students] : {std::pair{0.08, 0}, {0.09, 4}, {0.18, 4}, {0.2, 0}}) {
        situation.relative_width = width;
        EXPECT_EQ(verdict_at(situation).students.value_or(0), students) << width;
    }
    situation = near_rings();
    situation.samples = "images";
    const Verdict images = verdict_at(situation);
    EXPECT_FALSE(images.students);
    EXPECT_EQ(images.batch, 0);
    EXPECT_EQ(reasons_of(images), "trials.json has no trials with images\n");
    situation = near_rings();
    situation.students = {1, 2};  // of which only one was tried
    EXPECT_FALSE(verdict_at(situation).students);
    EXPECT_FALSE(judge(evidence_of({}), near_rings()).students);
}

TEST(Evidence, without_a_clear_difference_is_for_the_fewest_students) {
    json tie = rings();
    tie["batch"]["2"] = 128;
    tie["values"] = {{"1", {1.5, 2.0, 1.0}}, {"2", {3, 3, 3}}, {"4", {1.0, 0.5, 1.2}}};
    const Verdict verdict = judge(evidence_of({tie}), near_rings());
    EXPECT_EQ(verdict.students, 1);
    EXPECT_EQ(verdict.batch, 256);
    core::expect_contains(reasons_of(verdict),
                          "K=4 is lower than K=1 in 2 of 3 seeds, no clear difference, than K=2 in "
                          "3 of 3 seeds");
    core::expect_contains(reasons_of(verdict), "K = 1 and 4 are equally good");
    // Where another trial is clear, that decides.
    EXPECT_EQ(judge(evidence_of({tie, rings()}), near_rings()).students, 4);
}

TEST(Evidence, that_disagrees_decides_nothing) {
    json other = rings();
    other["set"] = "spirals";
    other["values"] = {{"1", {1, 1}}, {"4", {2, 2}}};
    const Verdict verdict = judge(evidence_of({rings(), other}), near_rings());
    EXPECT_FALSE(verdict.students);
    core::expect_contains(reasons_of(verdict), "these trials disagree");
    other["samples_per_condition"] = 20'000;  // too far away to count
    EXPECT_EQ(judge(evidence_of({rings(), other}), near_rings()).students, 4);
}

TEST(Evidence, is_checked_when_it_is_read) {
    const auto error = [](const char* key, const json& value) {
        json trials = rings();
        trials[key] = value;
        return core::error_of([&] { evidence_of({trials}); });
    };
    core::expect_contains(error("samples", "sounds"), "trials.json: trials[0]");
    core::expect_contains(error("samples", "sounds"), "not points or images");
    core::expect_contains(error("values", {{"1", {1, 2}}, {"4", {1}}}), "the same seeds");
    core::expect_contains(error("values", {{"1", {1, 2}}}), "at least two");
    core::expect_contains(error("values", {{"one", {1}}, {"4", {1}}}), "\"one\"");
    core::expect_contains(error("width", 0), "width");
    core::expect_contains(error("batch", {{"1", 64}}), "4");
    EXPECT_NE(core::error_of([] { evidence_from_json(json::object(), "trials.json"); }), "");
}

TEST(Evidence, of_the_program_can_be_read) {
    EXPECT_EQ(built_in_evidence().trials.size(),
              core::read_json(ATELIER_SOURCE_DIR "/docs/choosing-k.json").at("trials").size());
}

}  // namespace atelier::planning
