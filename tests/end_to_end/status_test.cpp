#include "end_to_end/program.h"

#include <nlohmann/json.hpp>

/// `atelier run --status DIR`.
namespace atelier::end_to_end {
namespace {

nlohmann::json status_of(const std::string& directory) {
    return nlohmann::json::parse(succeed({"run", "--status", directory, "--json"}).out);
}

nlohmann::json stage_in(const nlohmann::json& status, const std::string& path) {
    for (const auto& stage : status.at("stages")) {
        if (stage.at("stage") == path) return stage;
    }
    ADD_FAILURE() << path << " is not in " << status.dump();
    return nlohmann::json::object();
}

TEST(Status, of_a_finished_run_has_every_stage_done_with_its_time_and_distance) {
    const Folder folder;
    succeed(tiny("run", folder / "run"));
    const nlohmann::json status = status_of(folder / "run");
    EXPECT_EQ(status.at("state"), "finished");
    EXPECT_EQ(status.at("stages").size(), 3U + 2 * 2 + 3);
    EXPECT_EQ(status.at("holders").size(), 0U);
    EXPECT_GT(status.at("bytes").get<double>(), 10'000);
    EXPECT_FALSE(status.contains("next"));
    for (const auto& stage : status.at("stages")) EXPECT_EQ(stage.at("state"), "done") << stage;
    const nlohmann::json dm = stage_in(status, "students/1/dm");
    EXPECT_EQ(dm.at("steps"), 12);
    EXPECT_GT(dm.at("seconds").get<double>(), 0);
    EXPECT_GT(dm.at("probe_distance").get<double>(), 0);
    const std::string text = succeed({"run", "--status", folder / "run"}).out;
    expect_contains(text, "finished, 10 of 10 stages done");
    expect_contains(text, "students/1/adm   done in ");
    // Older versions recorded no plan.
    fs::remove(folder / "run/run.json");
    EXPECT_EQ(status_of(folder / "run").at("state"), "finished");
}

TEST(Status, of_a_running_and_an_interrupted_run_says_how_far_it_is_and_who_works_on_it) {
    const Folder folder;
    const Process process(tiny("run", folder / "run", {"teacher.steps=1000000", "log_every=5"}),
                          folder);
    nlohmann::json teacher;
    EXPECT_TRUE(soon([&] {
        if (!fs::exists(folder / "run/run.json")) return false;
        const nlohmann::json status = status_of(folder / "run");
        teacher = stage_in(status, "teacher");
        return teacher.contains("seconds_left") && teacher.contains("checkpoint_seconds_ago") &&
               status.at("state") == "running";
    })) << teacher;
    EXPECT_EQ(teacher.at("state"), "running");
    EXPECT_EQ(teacher.at("steps"), 1'000'000);
    EXPECT_GT(teacher.at("step").get<int>(), 0);
    EXPECT_GT(teacher.at("steps_per_second").get<double>(), 0);
    EXPECT_EQ(teacher.at("holder").at("pid"), status_of(folder / "run").at("holders")[0].at("pid"));
    const Outcome second = run(tiny("run", folder / "run", {"teacher.steps=1000000"}));
    EXPECT_EQ(second.code, 1);
    expect_contains(second.err, "another process is working in this directory (process ");

    process.signal(SIGKILL);
    process.wait();
    const nlohmann::json status = status_of(folder / "run");
    EXPECT_EQ(status.at("state"), "interrupted");
    EXPECT_EQ(status.at("holders").size(), 0U);
    EXPECT_EQ(status.at("next"), "partition");
    teacher = stage_in(status, "teacher");
    EXPECT_EQ(teacher.at("state"), "interrupted");
    EXPECT_FALSE(teacher.contains("seconds_left"));
    EXPECT_EQ(stage_in(status, "students/0/dm").at("state"), "waiting");
    expect_contains(succeed({"run", "--status", folder / "run"}).out, "partition        next");
}

TEST(Status, of_what_is_no_run_is_one_message) {
    const Folder folder;
    fs::create_directory(folder / "empty");
    EXPECT_EQ(status_of(folder / "empty").at("state"), "empty");
    expect_contains(succeed({"run", "--status", folder / "empty"}).out, "empty; begin with");
    fs::create_directory(folder / "other");
    std::ofstream(folder / "other/notes.txt") << "none";
    for (const auto& [where, says] : std::map<std::string, std::string>{
             {folder / "nothing", "there is no such directory"},
             {folder / "other", "and no run; name a run's directory"},
             {folder / "other/notes.txt", "and no run"},
             {"models/fashion-mnist/k4", "and no run"}}) {
        const Outcome outcome = run({"run", "--status", where});
        EXPECT_EQ(outcome.code, 2) << where;
        expect_contains(outcome.err, says);
        EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    }
    EXPECT_EQ(run({"run", "configs/toy2d.toml", "--status", folder / "empty"}).code, 2);
    const Outcome neither = run({"run"});
    EXPECT_EQ(neither.code, 2);
    expect_contains(neither.err, "CONFIG is required; see atelier run --help");
    EXPECT_EQ(run({"run", "configs/toy2d.toml", "--json"}).code, 2);
}

}  // namespace
}  // namespace atelier::end_to_end
