#include "atelier/cli/usage.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "atelier/cli/class_ids.h"
#include "cli/program.h"
#include "core/test_folder.h"

/// What the command line accepts and rejects, without a process for each.
namespace atelier::cli {
namespace {

using core::expect_contains;

const std::string k4 = ATELIER_SOURCE_DIR "/models/fashion-mnist/k4-small";

struct Wrong {
    std::vector<std::string> arguments;
    const char* message;
};

TEST(Usage, what_is_wrong_is_named_and_ends_with_2) {
    for (const auto& [arguments, message] :
         {Wrong{{"smaple", k4}, "did you mean \"sample\""},
          {{"sample"}, "MODEL"},
          {{"sample", k4, "--count", "0", "--out", "x.png"}, "--count"},
          {{"sample", k4, "--count", "two", "--out", "x.png"}, "--count"},
          {{"sample", k4, "--seed", "-1", "--out", "x.png"}, "--seed"},
          {{"sample", k4, "--class", "snaeker", "--out", "x.png"}, "sneaker"},
          {{"sample", k4, "--class", "10", "--out", "x.png"}, "10"},
          {{"sample", k4, "--prompt", "a sneaker", "--out", "x.png"}, "has classes"},
          {{"sample", k4, "--engine", "fast", "--out", "x.png"}, "engine"},
          {{"sample", k4, "--device", "tpu", "--out", "x.png"}, "tpu"},
          {{"route", k4}, "--class"},
          {{"evaluate", k4, "--count", "1e3"}, "--count"},
          {{"run", ATELIER_SOURCE_DIR "/configs/toy2d.toml", "dm.stops=1"}, "dm.steps"},
          {{"completions", "tcsh"}, "tcsh"}}) {
        const Answer answer = atelier(arguments);
        EXPECT_EQ(answer.code, 2) << arguments[0] << ": " << answer.error;
        expect_contains(answer.error, message);
        EXPECT_EQ(answer.out, "") << arguments[0];
    }
}

TEST(Usage, help_and_version_are_no_errors) {
    const Answer all = atelier({"--help"});
    EXPECT_EQ(all.code, 0);
    for (const char* command : {"run", "sample", "serve", "evaluate", "convert"})
        expect_contains(all.out, command);
    expect_contains(all.out, "Exit codes: 0 done");
    const Answer sample = atelier({"sample", "--help"});
    EXPECT_EQ(sample.code, 0);
    expect_contains(sample.out, "--count");
    expect_contains(atelier({"--version"}).out, "atelier ");
}

TEST(Commands, that_only_look_answer_without_a_process) {
    const auto routed =
        nlohmann::json::parse(atelier({"route", k4, "--class", "0,9", "--json"}).out);
    ASSERT_EQ(routed.size(), 2U);
    EXPECT_NE(routed[0].at("student"), routed[1].at("student"));
    const auto about = nlohmann::json::parse(atelier({"inspect", k4, "--json"}).out);
    EXPECT_EQ(about.at("K"), 4);
    expect_contains(atelier({"inspect", k4}).out, "parameters");
    for (const char* shell : {"bash", "zsh", "fish"})
        expect_contains(atelier({"completions", shell}).out, "evaluate");
    const std::string toy = ATELIER_SOURCE_DIR "/configs/toy2d.toml";
    expect_contains(atelier({"run", toy, "--explain"}).out, "gan_weight");
    const core::TestFolder folder;
    const Answer plan =
        atelier({"run", toy, "--dry-run", "--json", "output=" + (folder / "run").string()});
    EXPECT_EQ(plan.code, 0) << plan.error;
    EXPECT_TRUE(nlohmann::json::parse(plan.out).at("stages").is_array());
    EXPECT_EQ(folder.entries(), 0U) << "a dry run writes nothing";
}

TEST(Sample, writes_what_the_ending_says) {
    const core::TestFolder folder;
    for (const char* name : {"grid.png", "images.npz", "folder"}) {
        const Answer answer = atelier(
            {"sample", k4, "--count", "2", "--class", "bag", "--out", (folder / name).string()});
        EXPECT_EQ(answer.code, 0) << answer.error;
        EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
    }
    EXPECT_TRUE(std::filesystem::is_directory(folder / "folder"));
}

TEST(ClassIds, are_names_or_numbers_and_names_may_hold_commas) {
    const std::vector<std::string> names{"bag", "ankle boot", "salt, pepper"};
    EXPECT_EQ(class_ids({"bag,1"}, names, 3), (std::vector<std::int64_t>{0, 1}));
    EXPECT_EQ(class_ids({"Ankle Boot", "2"}, names, 3), (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(class_ids({"salt, pepper"}, names, 3), (std::vector<std::int64_t>{2}));
    expect_contains(core::error_of<core::UsageError>([&] { class_ids({"beg"}, names, 3); }), "bag");
    expect_contains(core::error_of<core::UsageError>([&] { class_ids({"3"}, names, 3); }), "3");
}

}  // namespace
}  // namespace atelier::cli
