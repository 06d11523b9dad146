#include "atelier/training/run_directory.h"

#include <fstream>

#include "atelier/core/json_file.h"
#include "atelier/core/schema.h"
#include "atelier/training/run_log.h"

#include "training/training_fixtures.h"

namespace atelier::training {
namespace {

using nlohmann::json;

TEST(StageFolder, is_finished_only_after_finish_and_keeps_its_result) {
    const core::TestFolder folder;
    const json settings{{"seed", 1}};
    const StageFolder fresh(folder / "teacher", settings);
    EXPECT_FALSE(fresh.finished());
    EXPECT_EQ(fresh.result(), json::object());
    fresh.begin();
    EXPECT_FALSE(StageFolder(folder / "teacher", settings).finished());
    EXPECT_EQ(fresh.result(), json::object());
    fresh.finish({{"best_step", 7}});
    const StageFolder again(folder / "teacher", settings);
    EXPECT_TRUE(again.finished());
    EXPECT_EQ(again.result(), (json{{"best_step", 7}}));
}

TEST(StageFolder, queries_write_nothing) {
    const core::TestFolder folder;
    EXPECT_FALSE(StageFolder(folder / "teacher", json{{"seed", 1}}).finished());
    EXPECT_EQ(folder.entries(), 0U);
}

TEST(StageFolder, rejects_changed_settings_and_lists_each_difference) {
    const core::TestFolder folder;
    const json before{
        {"seed", 1}, {"teacher", {{"lr", 0.001}, {"steps", 100}}}, {"data", {{"path", "a"}}}};
    json after = before;
    after["teacher"]["lr"] = 0.002;
    after["data"]["flips"] = true;
    for (const bool finished : {false, true}) {
        const StageFolder stage(folder / "teacher", before);
        stage.begin();
        if (finished) stage.finish(json::object());
        const std::string message =
            core::error_of<core::UsageError>([&] { StageFolder(folder / "teacher", after); });
        core::expect_contains(message, (folder / "teacher").string());
        for (const char* part : {"teacher.lr: 0.001 -> 0.002", "data.flips: (absent) -> true"})
            core::expect_contains(message, part);
        EXPECT_EQ(message.find("steps"), std::string::npos)
            << "what did not change is listed: " << message;
        EXPECT_NO_THROW(StageFolder(folder / "teacher", before));
    }
}

/// A config's values that affect results, reduced to those that a stage depends on, as in a
/// command.
json settings_of(const std::vector<std::string>& overrides, const std::vector<std::string>& keys) {
    std::int64_t seed = 0, steps = 10, students = 2;
    double checkpoint_seconds = 60;
    core::Schema schema;
    schema.number("seed", &seed, "seed");
    schema.number("teacher.steps", &steps, "steps");
    schema.number("teacher.checkpoint_seconds", &checkpoint_seconds, "time between checkpoints",
                  {.affects_result = false});
    schema.number("partition.students", &students, "K");
    const core::TestFolder folder;
    std::ofstream(folder / "config.toml") << "seed = 3\n";
    schema.read(folder / "config.toml", overrides);
    return selected(schema.values(true), keys);
}

TEST(StageFolder, settings_that_change_no_result_or_belong_to_other_stages_may_change) {
    const core::TestFolder folder;
    const std::vector<std::string> keys{"seed", "teacher", "threads"};
    StageFolder(folder / "teacher", settings_of({}, keys)).begin();
    EXPECT_NO_THROW(
        StageFolder(folder / "teacher",
                    settings_of({"teacher.checkpoint_seconds=1", "partition.students=4"}, keys)));
    core::expect_contains(
        core::error_of(
            [&] { StageFolder(folder / "teacher", settings_of({"teacher.steps=11"}, keys)); }),
        "teacher.steps: 10 -> 11");
}

TEST(SelectedSettings, are_the_values_under_the_keys_nested_as_they_were) {
    const json values{{"seed", 1},
                      {"teacher", {{"lr", 0.1}, {"steps", 5}}},
                      {"partition", {{"students", 4}, {"method", "random"}}}};
    EXPECT_EQ(selected(values, {"seed", "partition.students", "missing", "teacher.missing"}),
              (json{{"seed", 1}, {"partition", {{"students", 4}}}}));
    EXPECT_EQ(selected(values, {"teacher"}), (json{{"teacher", values["teacher"]}}));
    EXPECT_EQ(selected(values, {}), json::object());
}

TEST(StageFolder, is_compared_by_content_where_content_was_recorded) {
    const core::TestFolder folder;
    const auto identity = [](const std::string& path, const std::string& hash) {
        return StageIdentity{.settings = {{"seed", 1}, {"data", {{"path", path}}}},
                             .contents = {{"data.path", hash}}};
    };
    StageFolder(folder / "dm", identity("a.zip", "11")).begin();
    EXPECT_NO_THROW(StageFolder(folder / "dm", identity("moved/a.zip", "11")));
    core::expect_contains(core::error_of<core::UsageError>(
                              [&] { StageFolder(folder / "dm", identity("a.zip", "22")); }),
                          "data.path: its content has changed");
    // Recorded by a version without content hashes: the path itself is compared.
    const json before{{"seed", 1}, {"data", {{"path", "a.zip"}}}};
    StageFolder(folder / "old", before).begin();
    EXPECT_NO_THROW(StageFolder(folder / "old", identity("a.zip", "11")));
    core::expect_contains(core::error_of<core::UsageError>(
                              [&] { StageFolder(folder / "old", identity("b.zip", "11")); }),
                          "data.path: \"a.zip\" -> \"b.zip\"");
}

TEST(StageFolder, of_an_older_version_stays_readable) {
    const core::TestFolder folder;
    const json before{
        {"seed", 1}, {"threads", 2}, {"dm", {{"steps", 9}}}, {"evaluate", {{"classifier", "c"}}}};
    StageFolder(folder / "dm", before).begin();
    const StageIdentity now{
        .settings = {{"seed", 1}, {"dm", {{"steps", 9}, {"new", 0.5}}}, {"probe", {{"every", 50}}}},
        .contents = {{"teacher", "11"}},
        .defaults = {{"dm", {{"new", 0.5}}}, {"probe", {{"every", 0}}}}};
    EXPECT_NO_THROW(StageFolder(folder / "dm", now));
    StageIdentity other = now;
    other.settings["dm"]["new"] = 0.75;
    core::expect_contains(
        core::error_of<core::UsageError>([&] { StageFolder(folder / "dm", other); }),
        "dm.new: (absent) -> 0.75");
}

TEST(StageFolder, with_former_key_names_stays_readable) {
    const core::TestFolder folder;
    const StageFolder before(folder / "teacher", json{{"teacher", {{"level_mean", 0.4}}},
                                                      {"adm", {{"gan_weight", "0.01"}}}});
    before.begin();
    before.finish(json::object());
    const auto identity = [](double p_mean) {
        return StageIdentity{
            .settings = {{"teacher", {{"p_mean", p_mean}}}, {"adm", {{"gan_weight", 0.01}}}},
            .defaults = {{"teacher", {{"p_mean", -1.2}}}},
            .former_keys = {{"teacher.level_mean", "teacher.p_mean"}}};
    };
    EXPECT_TRUE(StageFolder(folder / "teacher", identity(0.4)).finished());
    for (const double other : {-1.2, 0.5}) {
        core::expect_contains(core::error_of<core::UsageError>(
                                  [&] { StageFolder(folder / "teacher", identity(other)); }),
                              "teacher.p_mean: 0.4 -> ");
    }
}

TEST(StageFolder, resumes_where_its_extensible_key_was_raised_and_keeps_its_notes) {
    const core::TestFolder folder;
    const auto identity = [](int steps) {
        return StageIdentity{.settings = {{"seed", 1}, {"teacher", {{"steps", steps}}}},
                             .extensible_key = "teacher.steps"};
    };
    const StageFolder first(folder / "teacher", identity(100));
    first.begin({{"classifier", "c"}});
    first.finish({{"seconds", 3}});
    EXPECT_TRUE(StageFolder(folder / "teacher", identity(100)).finished());
    const StageFolder longer(folder / "teacher", identity(150));
    EXPECT_FALSE(longer.finished());
    EXPECT_EQ(longer.extended_from(), 100);
    EXPECT_EQ(longer.note("classifier"), "c");
    longer.begin({{"continued_from", 100}});
    EXPECT_EQ(longer.extended_from(), std::nullopt) << "it is not finished now";
    EXPECT_EQ(longer.note("classifier"), "c");
    EXPECT_EQ(longer.note("continued_from"), 100);
    core::expect_contains(
        core::error_of<core::UsageError>([&] { StageFolder(folder / "teacher", identity(100)); }),
        "teacher.steps: 150 -> 100");
    longer.finish({{"seconds", 5}});
    EXPECT_TRUE(StageFolder(folder / "teacher", identity(150)).finished());
    EXPECT_EQ(StageFolder(folder / "teacher", identity(150)).note("continued_from"), 100);
}

TEST(RunLog, a_resumed_log_drops_the_lines_that_will_be_rewritten) {
    const core::TestFolder folder;
    {
        RunLog log(folder.path(), 0);
        for (const std::int64_t step : {5, 10, 15}) log.write(step, {{"loss", 0.5}});
    }
    // The process died while writing.
    std::ofstream(folder / "metrics.jsonl", std::ios::app) << "{\"step\":3,\"lo";
    RunLog(folder.path(), 10).write(12, {{"loss", 0.25}});
    EXPECT_EQ(lines_of(folder / "metrics.jsonl"),
              (std::vector<std::string>{R"({"step":5,"loss":0.5})", R"({"step":12,"loss":0.25})"}));
}

TEST(RunLog, non_finite_values_are_omitted_so_that_each_line_is_json) {
    const core::TestFolder folder;
    RunLog(folder.path(), 0)
        .write(1, {{"loss", std::numeric_limits<double>::infinity()},
                   {"other", 2},
                   {"none", std::nan("")}});
    EXPECT_EQ(lines_of(folder / "metrics.jsonl"),
              std::vector<std::string>{R"({"step":1,"other":2.0})"});
}

}  // namespace
}  // namespace atelier::training
