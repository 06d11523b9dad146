#include <fstream>

#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "core/test_folder.h"

/// `atelier plan`, with rates given, so that nothing is measured.
namespace atelier::cli {
namespace {

using core::expect_contains;
using nlohmann::json;

const std::string toy = ATELIER_SOURCE_DIR "/configs/study-toy.toml";

std::vector<std::string> plan(const std::vector<std::string>& more) {
    std::vector<std::string> words{"plan", toy, "--tflops", "1", "--latency-tflops", "1"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

json planned(const std::vector<std::string>& more) {
    std::vector<std::string> words = plan(more);
    words.emplace_back("--json");
    const Answer answer = atelier(words);
    EXPECT_EQ(answer.code, 0) << answer.error;
    return json::parse(answer.out);
}

std::int64_t steps_of(const json& candidate, const std::string& stage) {
    for (const json& each : candidate.at("steps")) {
        if (each.at("stage") == stage && each.at("of") == "student")
            return each.at("steps").get<std::int64_t>();
    }
    return 0;
}

}  // namespace

TEST(Plan, spends_the_budget_whatever_the_number_of_students_and_their_width) {
    const json answer = planned({"--budget", "0.001"});
    const double students_hours = 0.001 - answer.at("teacher_hours").get<double>();
    EXPECT_GT(answer.at("teacher_hours").get<double>(), 0);
    std::set<std::int64_t> numbers, widths;
    std::map<std::int64_t, double> per_condition;
    for (const json& candidate : answer.at("candidates")) {
        const auto students = candidate.at("students").get<std::int64_t>(),
                   width = candidate.at("width").get<std::int64_t>();
        numbers.insert(students);
        widths.insert(width);
        const double hours = candidate.at("hours").get<double>();
        EXPECT_LE(hours, students_hours);
        EXPECT_NEAR(hours, students_hours, 0.05 * students_hours);
        EXPECT_NEAR(candidate.at("flops").get<double>(), hours * 3600 * 1e12, 1e6);
        EXPECT_NEAR(static_cast<double>(steps_of(candidate, "dm")),
                    3.0 * static_cast<double>(steps_of(candidate, "adm")), 3);
        EXPECT_EQ(steps_of(candidate, "tsm") > 0, width < 64);
        // The same samples per condition for any number of students.
        const double samples = candidate.at("samples_per_condition").get<double>();
        if (per_condition.contains(width)) {
            EXPECT_NEAR(samples / per_condition[width], 1, 0.05) << students << " " << width;
        }
        per_condition[width] = samples;
        EXPECT_NEAR(
            samples,
            candidate.at("samples_per_student").get<double>() * static_cast<double>(students) / 8,
            1e-6 * samples);
    }
    EXPECT_EQ(numbers, (std::set<std::int64_t>{1, 2, 4, 8}));
    EXPECT_EQ(widths, (std::set<std::int64_t>{64, 32, 16, 8}));
    EXPECT_GT(per_condition[8], per_condition[64]) << "narrow students are cheaper";
}

TEST(Plan, does_not_guess_where_nothing_is_known) {
    const core::TestFolder folder;
    std::ofstream(folder / "none.json") << R"({"trials": []})";
    const json answer =
        planned({"--budget", "0.001", "--evidence", (folder / "none.json").string()});
    const json& choice = answer.at("choice");
    EXPECT_EQ(choice.at("students"), 4);
    EXPECT_EQ(choice.at("students_from"), "config");
    EXPECT_EQ(choice.at("width"), 64);
    const Answer text =
        atelier(plan({"--budget", "0.001", "--evidence", (folder / "none.json").string()}));
    expect_contains(text.out, "none.json has no trials with points");
    expect_contains(
        text.out, "nothing here says that another number is better or worse than 4, the config's");
}

TEST(Plan, goes_by_the_trials_that_are_near_and_names_their_batch) {
    const core::TestFolder folder;
    const auto with_trials = [&](double samples, const char* one, const char* four) {
        std::ofstream(folder / "trials.json") << fmt::format(
            R"({{"trials": [{{"set": "s", "samples": "points", "measure": "strays %", "width": 8,
                "teacher_width": 64, "samples_per_condition": {}, "batch": {{"1": 64, "4": 32}},
                "values": {{"1": {}, "4": {}}}}}]}})",
            samples, one, four);
        return planned({"--budget", "0.001", "--evidence", (folder / "trials.json").string(),
                        "students.widths=[8]"});
    };
    const json far = with_trials(10, "[1, 1]", "[0.5, 0.5]").at("choice");
    EXPECT_EQ(far.at("students_from"), "config");
    const double here = far.at("samples_per_condition").get<double>();
    const json four = with_trials(here * 1.5, "[1, 1]", "[0.5, 0.5]").at("choice"),
               one = with_trials(here * 1.5, "[1, 1]", "[1.5, 1.5]").at("choice");
    EXPECT_EQ(four.at("students"), 4);
    EXPECT_EQ(one.at("students"), 1);
    EXPECT_EQ(one.at("students_from"), "evidence");
    // As many samples in smaller batches, for the same budget.
    EXPECT_EQ(four.at("steps").back().at("batch"), 32);
    EXPECT_NEAR(four.at("samples_per_condition").get<double>() / here, 1, 0.05);
    const auto overrides = four.at("overrides").get<std::vector<std::string>>();
    for (const char* word : {"partition.students=4", "students.widths=[8]", "dm.batch=32"})
        EXPECT_NE(std::ranges::find(overrides, word), overrides.end()) << word;
    // Its words make the run that it describes.
    std::vector<std::string> run{"run", toy, "--dry-run", "--json", "--tflops", "1"};
    run.insert(run.end(), overrides.begin(), overrides.end());
    const json dry = json::parse(atelier(run).out);
    double hours = 0;
    for (const json& stage : dry.at("stages")) {
        if (stage.at("stage") != "teacher") hours += stage.at("seconds").get<double>() / 3600;
    }
    EXPECT_NEAR(hours, four.at("hours").get<double>(), 1e-9);
}

TEST(Plan, narrows_students_to_the_latency_and_counts_a_trunk_once) {
    const json all = planned({"--budget", "0.001"});
    double at_16 = 0;
    for (const json& candidate : all.at("candidates")) {
        if (candidate.at("width") == 16) at_16 = candidate.at("latency_ms").get<double>();
    }
    const json answer = planned({"--budget", "0.001", "--latency", fmt::format("{}", at_16)});
    EXPECT_EQ(answer.at("choice").at("width"), 16);
    for (const json& candidate : answer.at("candidates"))
        EXPECT_EQ(candidate.at("unfit") == "too slow", candidate.at("width") > 16) << candidate;
    const Answer none = atelier(plan({"--budget", "0.001", "--latency", "1e-9"}));
    EXPECT_EQ(none.code, 2);
    expect_contains(none.error, "the narrowest students, 8 wide");

    const json with_trunk = planned({"--budget", "0.001", "trunk.dm_steps=900"});
    for (const json& candidate : with_trunk.at("candidates")) {
        const json& trunk = candidate.at("steps").at(0);
        EXPECT_EQ(trunk.at("of"), "trunk");
        if (candidate.at("width") < 64) continue;
        // 900 steps once, and 300 of each student, in proportion.
        EXPECT_NEAR(trunk.at("steps").get<double>(),
                    3.0 * static_cast<double>(steps_of(candidate, "dm")), 3);
    }
}

TEST(Plan, says_what_is_wrong) {
    const auto error = [](const std::vector<std::string>& words, int code = 2) {
        const Answer answer = atelier(words);
        EXPECT_EQ(answer.code, code) << answer.error;
        EXPECT_EQ(answer.out, "");
        return answer.error;
    };
    expect_contains(error({"plan", toy}), "--budget");
    expect_contains(error(plan({"--budget", "0"})), "--budget");
    expect_contains(error(plan({"--budget", "1e-9"})), "the teacher's training alone takes");
    expect_contains(error(plan({"--budget", "1e-12", "teacher.path=given"})), "is not enough");
    expect_contains(error(plan({"--budget", "1", "--evidence", "nowhere.json"}), 1),
                    "nowhere.json");
    expect_contains(error({"plan", ATELIER_SOURCE_DIR "/configs/imagenet64-msd4-dm.toml",
                           "--budget", "1", "--latency-tflops", "1"}),
                    "give --tflops");
    expect_contains(error(plan({"--budget", "1", "students.depths=[2,3,3,3]"})),
                    "students of one size");
}

}  // namespace atelier::cli
