#include "atelier/core/schema.h"

#include "core/test_folder.h"

#include "atelier/core/atomic_file.h"

namespace atelier::core {

namespace {

struct Config {
    std::int64_t seed = 0;
    std::int64_t steps = 1000;
    double rate = 0.001;
    bool ema = true;
    std::string output = "runs/toy";
    std::string method = "kmeans";
    std::vector<std::int64_t> widths{32, 64};
    std::vector<double> levels;
    std::vector<std::string> metrics{"fid"};
};

class SchemaTest : public ::testing::Test {
protected:
    SchemaTest() {
        schema_.number("seed", &config_.seed, "seed of all randomness", {.min = 0});
        schema_.text("output", &config_.output, "the run directory", {}, false);
        schema_.number("teacher.steps", &config_.steps, "optimiser steps", {.min = 0, .max = 1e6});
        schema_.number("teacher.rate", &config_.rate, "learning rate", {.min = 0});
        schema_.flag("teacher.ema", &config_.ema, "average the weights");
        schema_.numbers("teacher.widths", &config_.widths, "channels", {.min = 1});
        schema_.numbers("teacher.levels", &config_.levels, "noise levels");
        schema_.text("partition.method", &config_.method, "how to split", {"kmeans", "labels"});
        schema_.texts("metrics", &config_.metrics, "what to measure", {"fid", "kid"});
    }

    void read(const std::string& toml, const std::vector<std::string>& overrides = {}) {
        write_text(path(), toml);
        schema_.read(path(), overrides);
    }

    /// The message without the folder's name.
    std::string refusal(const std::string& toml, const std::vector<std::string>& overrides = {}) {
        const std::string message = error_of<UsageError>([&] { read(toml, overrides); });
        const std::string folder = folder_.path().string() + "/";
        return message.starts_with(folder) ? message.substr(folder.size()) : message;
    }

    std::filesystem::path path() const { return folder_ / "x.toml"; }

    TestFolder folder_;
    Config config_;
    Schema schema_;
};

}  // namespace

TEST_F(SchemaTest, text_without_quotes_is_shown_with_them) {
    expect_contains(refusal("seed = 1\noutput = runs/mine  # where\n"), "x.toml:2: ");
    expect_contains(refusal("seed = 1\noutput = runs/mine  # where\n"),
                    "; text is quoted: output = \"runs/mine\"");
    EXPECT_EQ(refusal("output = \"runs\n").find("text is quoted"), std::string::npos);
}

TEST_F(SchemaTest, a_file_and_then_overrides_set_the_fields) {
    read(
        "seed = 4\nmetrics = [\"kid\"]\n[teacher]\nsteps = 10\nrate = 1\nema = false\nwidths = [1, "
        "2, 3]\nlevels = [80, 0.5]\n",
        {"teacher.steps=20", "partition.method=labels", "teacher.widths=[8]", "output=runs/x-1"});
    EXPECT_EQ(config_.seed, 4);
    EXPECT_EQ(config_.steps, 20);
    EXPECT_EQ(config_.rate, 1.0);
    EXPECT_FALSE(config_.ema);
    EXPECT_EQ(config_.widths, (std::vector<std::int64_t>{8}));
    EXPECT_EQ(config_.levels, (std::vector<double>{80, 0.5}));
    EXPECT_EQ(config_.method, "labels");
    EXPECT_EQ(config_.output, "runs/x-1");
    EXPECT_EQ(config_.metrics, (std::vector<std::string>{"kid"}));
}

TEST_F(SchemaTest, what_is_not_named_keeps_its_default) {
    read("[teacher]\n");
    EXPECT_EQ(config_.steps, 1000);
    EXPECT_EQ(config_.method, "kmeans");
}

TEST_F(SchemaTest, an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one) {
    EXPECT_EQ(refusal("seed = 1\n\n[techer]\nsteps = 5\n"),
              "x.toml:4: unknown key \"techer.steps\"; did you mean \"teacher.steps\"?");
    EXPECT_EQ(refusal("zzzzzzzz = 1\n"), "x.toml:1: unknown key \"zzzzzzzz\"");
    EXPECT_EQ(refusal("[optimizer]\n"), "x.toml:1: unknown key \"optimizer\"");
    EXPECT_EQ(refusal("", {"teacher.step=5"}),
              "command line: unknown key \"teacher.step\"; did you mean \"teacher.steps\"?");
    EXPECT_EQ(refusal("[seed.deep]\nx = 1\n"),
              "x.toml:1: seed must be a whole number, not a table");
}

TEST_F(SchemaTest, a_mistyped_value_is_refused_with_its_line) {
    EXPECT_EQ(refusal("\n\nseed = \"soon\"\n"),
              "x.toml:3: seed must be a whole number, not a string (\"soon\")");
    EXPECT_EQ(refusal("seed = 1.5"),
              "x.toml:1: seed must be a whole number, not a real number (1.5)");
    EXPECT_EQ(refusal("teacher.ema = 1"),
              "x.toml:1: teacher.ema must be true or false, not a whole number (1)");
    EXPECT_EQ(refusal("output = 1"), "x.toml:1: output must be a string, not a whole number (1)");
    EXPECT_EQ(refusal("teacher.widths = 3"),
              "x.toml:1: teacher.widths must be a list, not a whole number (3)");
    EXPECT_EQ(refusal("teacher.widths = [3, true]"),
              "x.toml:1: teacher.widths must be a whole number, not true or false (true)");
    EXPECT_EQ(refusal("teacher.rate = nan"),
              "x.toml:1: teacher.rate must be a finite number, not a real number (nan)");
    EXPECT_EQ(refusal("", {"output=runs/caf\xe9"}),
              "command line: \"output=runs/caf\\xe9\" is not UTF-8, which configs are");
    EXPECT_EQ(refusal("", {"seed=soon"}),
              "command line: seed must be a whole number, not a string (\"soon\")");
}

TEST_F(SchemaTest, a_whole_number_beyond_64_bits_is_refused_with_the_range) {
    EXPECT_EQ(refusal("", {"seed=9223372036854775808"}),
              "command line: seed must be a whole number from 0 to 9223372036854775807, not "
              "9223372036854775808");
    EXPECT_EQ(refusal("", {"teacher.steps=-99999999999999999999"}),
              "command line: teacher.steps must be a whole number from 0 to 1000000, not "
              "-99999999999999999999");
    const std::string in_file = refusal("seed = 9223372036854775808\n");
    expect_contains(in_file, "x.toml:1: ");
    expect_contains(in_file, "not representable in 64 bits");
    EXPECT_EQ(in_file.find("text is quoted"), in_file.npos) << in_file;
    expect_contains(refusal("output = some/where\n"), "text is quoted: output = \"some/where\"");
}

TEST_F(SchemaTest, a_value_out_of_range_or_choices_is_refused) {
    EXPECT_EQ(refusal("seed = -1"), "x.toml:1: seed must be at least 0, not -1");
    EXPECT_EQ(refusal("teacher.steps = 2000000"),
              "x.toml:1: teacher.steps must be from 0 to 1000000, not 2000000");
    EXPECT_EQ(refusal("teacher.widths = [4, 0]"),
              "x.toml:1: teacher.widths must be at least 1, not 0");
    EXPECT_EQ(refusal("partition.method = 'labls'"),
              "x.toml:1: partition.method must be one of \"kmeans\", \"labels\", not \"labls\"; "
              "did you mean \"labels\"?");
    EXPECT_EQ(refusal("metrics = ['fid', 'x']"),
              "x.toml:1: metrics must be one of \"fid\", \"kid\", not \"x\"");
}

TEST_F(SchemaTest, broken_and_missing_files_are_usage_errors) {
    expect_contains(refusal("seed = 1\nseed = = 2\n"), "x.toml:2: ");
    expect_contains(refusal("seed = 1\nseed = 2\n"), "x.toml:2: ");
    expect_contains(error_of<UsageError>([&] { schema_.read("/nowhere/x.toml", {}); }),
                    "/nowhere/x.toml");
    refusal("x = " + std::string(200'000, '['));
}

TEST_F(SchemaTest, a_bare_override_of_a_text_is_its_text) {
    const std::pair<const char*, const char*> cases[] = {{"output=7", "7"},
                                                         {"output=true", "true"},
                                                         {"output=out/a b", "out/a b"},
                                                         {"output=\"q\"", "q"},
                                                         {"output='a=b'", "a=b"},
                                                         {"output=", ""},
                                                         {"output=1979-05-27", "1979-05-27"},
                                                         {"output=a=b.c", "a=b.c"},
                                                         {"output=0x10", "0x10"}};
    for (const auto& [text, value] : cases) {
        read("", {text});
        EXPECT_EQ(config_.output, value);
    }
}

TEST_F(SchemaTest, overrides_that_are_not_values_are_refused) {
    EXPECT_EQ(refusal("", {"seed"}), "command line: \"seed\" is not of the form key=value");
    expect_contains(refusal("", {"=1"}), "key=value");
    expect_contains(refusal("", {"teacher.widths=[1,"}), "teacher.widths");
    expect_contains(refusal("", {"seed=1\nteacher.steps=2"}), "seed");
    expect_contains(refusal("", {"output=[1]"}), "output must be a string, not a list");
}

TEST_F(SchemaTest, values_are_nested_and_may_leave_out_what_affects_no_result) {
    const auto all = schema_.values();
    EXPECT_EQ(all["teacher"]["steps"], 1000);
    EXPECT_EQ(all["output"], "runs/toy");
    EXPECT_EQ(all["teacher"]["widths"], (std::vector<int>{32, 64}));
    const auto result = schema_.values(true);
    EXPECT_FALSE(result.contains("output"));
    EXPECT_EQ(result["seed"], 0);
}

TEST_F(SchemaTest, explain_lists_every_key_with_its_default) {
    read("seed = 9");
    const std::string text = schema_.explain();
    expect_contains(text, "[teacher]\n");
    expect_contains(text, "steps    whole number   1000 ");
    expect_contains(text, "optimiser steps (from 0 to 1000000)");
    expect_contains(text, "how to split (one of \"kmeans\", \"labels\")");
    expect_contains(text, "seed     whole number   0 ");  // the default, not what was read
}

TEST_F(SchemaTest, a_key_is_read_under_its_former_name_but_not_under_both) {
    schema_.formerly("teacher.rate", "teacher.pace");
    read("[teacher]\npace = 0.5\n");
    EXPECT_EQ(config_.rate, 0.5);
    EXPECT_EQ(schema_.source("teacher.rate"), Schema::Source::file);
    read("", {"teacher.pace=0.25"});
    EXPECT_EQ(config_.rate, 0.25);
    EXPECT_EQ(schema_.source("teacher.rate"), Schema::Source::command_line);
    read("[teacher]\npace = 0.5\n", {"teacher.rate=2"});
    EXPECT_EQ(config_.rate, 2) << "an override replaces the file's value under either name";
    read("[teacher]\nrate = 0.5\n", {"teacher.pace=3"});
    EXPECT_EQ(config_.rate, 3);

    EXPECT_EQ(refusal("[teacher]\nrate = 1\npace = 2\n"),
              "x.toml:2: teacher.rate and teacher.pace (" + path().string() +
                  ":3) are the same key; keep only teacher.rate");
    EXPECT_EQ(refusal("", {"teacher.pace=1", "teacher.rate=2"}),
              "command line: teacher.rate and teacher.pace (command line) are the same key; keep "
              "only teacher.rate");
    EXPECT_EQ(refusal("teacher.pace = -1\n"), "x.toml:1: teacher.pace must be at least 0, not -1");
}

TEST_F(SchemaTest, former_names_are_neither_suggested_nor_explained_nor_recorded) {
    schema_.formerly("teacher.rate", "teacher.pace");
    EXPECT_EQ(refusal("teacher.pacee = 1\n").find("teacher.pace\""), std::string::npos);
    EXPECT_EQ(schema_.explain().find("pace"), std::string::npos);
    EXPECT_FALSE(schema_.values()["teacher"].contains("pace"));
    EXPECT_EQ(schema_.former_keys(),
              (std::map<std::string, std::string>{{"teacher.pace", "teacher.rate"}}));
}

TEST_F(SchemaTest, a_number_or_auto_may_be_quoted) {
    std::optional<double> weight = 0.5;
    schema_.number_or_auto("weight", &weight, "of the loss", {.min = 0});
    expect_contains(schema_.explain(), "number or \"auto\"");
    EXPECT_EQ(schema_.values()["weight"], 0.5);
    for (const char* text : {"weight = 0.25", "weight = \"0.25\"", "weight = 2.5e-1"}) {
        read(text);
        EXPECT_EQ(weight, 0.25) << text;
    }
    read("weight = 1");
    EXPECT_EQ(weight, 1.0);
    read("weight = \"auto\"");
    EXPECT_EQ(weight, std::nullopt);
    EXPECT_EQ(schema_.values()["weight"], "auto");
    read("", {"weight=0.75"});
    EXPECT_EQ(weight, 0.75);
    read("", {"weight=auto"});
    EXPECT_EQ(weight, std::nullopt);

    EXPECT_EQ(refusal("weight = \"much\""),
              "x.toml:1: weight must be a number or \"auto\", not a string (\"much\")");
    EXPECT_EQ(refusal("weight = \"\""),
              "x.toml:1: weight must be a number or \"auto\", not a string (\"\")");
    EXPECT_EQ(refusal("weight = true"),
              "x.toml:1: weight must be a number or \"auto\", not true or false (true)");
    EXPECT_EQ(refusal("weight = \"-1\""), "x.toml:1: weight must be at least 0, not -1");
}

TEST(Differences, are_named_by_leaf) {
    using nlohmann::json;
    const json before = json::parse(R"({"teacher":{"lr":0.001,"w":[1,2]},"old":1,"same":"x"})");
    const json after = json::parse(R"({"teacher":{"lr":0.002,"w":[1,3]},"new":true,"same":"x"})");
    EXPECT_EQ(
        differences(before, after),
        (std::vector<std::string>{"new: (absent) -> true", "old: 1 -> (absent)",
                                  "teacher.lr: 0.001 -> 0.002", "teacher.w: [1,2] -> [1,3]"}));
    EXPECT_TRUE(differences(before, before).empty());
}

TEST(ChangedSince, counts_dependencies_that_have_changed) {
    using nlohmann::json;
    const json recorded = json::parse(R"({"seed":1,"teacher":{"lr":0.001,"gone":3},"threads":2})");
    const json defaults =
        json::parse(R"({"device":"cpu","teacher":{"new":5},"probe":{"every":0}})");
    const auto now = [](const char* text) { return json::parse(text); };
    EXPECT_TRUE(
        changed_since(
            recorded,
            now(R"({"seed":1,"device":"cpu","teacher":{"lr":0.001,"new":5},"probe":{"every":50}})"),
            defaults)
            .empty());
    EXPECT_EQ(
        changed_since(recorded, now(R"({"seed":2,"device":"cuda","teacher":{"lr":0.001,"new":6}})"),
                      defaults),
        (std::vector<std::string>{"device: (absent) -> \"cuda\"", "seed: 1 -> 2",
                                  "teacher.new: (absent) -> 6"}));
}

TEST(ChangedSince, a_number_that_was_recorded_as_a_string_is_the_same_number) {
    using nlohmann::json;
    const json recorded{{"adm", {{"weight", "1e-2"}, {"balance", "auto"}}}};
    EXPECT_TRUE(
        changed_since(recorded, {{"adm", {{"weight", 0.01}, {"balance", "auto"}}}}, {}).empty());
    EXPECT_EQ(
        changed_since(recorded, {{"adm", {{"weight", 0.02}, {"balance", 1}}}}, {}),
        (std::vector<std::string>{"adm.balance: \"auto\" -> 1", "adm.weight: \"1e-2\" -> 0.02"}));
}

TEST_F(SchemaTest, keys_know_the_stages_they_were_bound_for_and_where_their_values_come_from) {
    std::int64_t steps = 1, batch = 2, threads = 3;
    Schema schema;
    schema.set_stages({"teacher", "students"});
    schema.number("steps", &steps, "of the teacher");
    schema.number("threads", &threads, "any number", {.affects_result = false});
    schema.set_stages({"students"});
    schema.number("students.batch", &batch, "of students");
    EXPECT_EQ(schema.values_of("teacher"), (nlohmann::json{{"steps", 1}}));
    EXPECT_EQ(schema.values_of("students"),
              (nlohmann::json{{"steps", 1}, {"students", {{"batch", 2}}}}));
    EXPECT_EQ(schema.values_of("other"), nlohmann::json::object());
    const TestFolder folder;
    write_text(folder / "c.toml", "steps = 5\n");
    schema.read(folder / "c.toml", {"students.batch=9"});
    EXPECT_EQ(schema.source("steps"), Schema::Source::file);
    EXPECT_EQ(schema.source("students.batch"), Schema::Source::command_line);
    EXPECT_EQ(schema.source("threads"), Schema::Source::preset);
}

TEST(NearestWord, is_near_or_nothing) {
    const std::vector<std::string> known{"teacher.steps", "teacher.rate", "seed"};
    EXPECT_EQ(nearest_word("techer.steps", known), "teacher.steps");
    EXPECT_EQ(nearest_word("sede", known), "seed");
    EXPECT_EQ(nearest_word("resolution", known), "");
    EXPECT_EQ(nearest_word("", known), "");
}

}  // namespace atelier::core
