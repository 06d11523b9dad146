#include "end_to_end/program.h"

#include <algorithm>
#include <random>
#include <set>

namespace atelier::end_to_end {
namespace {

/// Of the files of a run, half-written ones among them; they may change while this looks.
std::set<std::string> names_below(const std::string& folder) {
    std::set<std::string> names;
    std::error_code error;
    for (auto at = fs::recursive_directory_iterator(folder, error);
         !error && at != fs::recursive_directory_iterator(); at.increment(error))
        names.insert(at->path().string());
    return names;
}

/// Killed at moments that are counted in changes of its files, not in seconds.
TEST(Trust, a_repeatedly_killed_run_ends_with_the_bytes_of_an_undisturbed_one) {
    const Folder folder;
    succeed(tiny("run", folder / "whole"));
    std::mt19937 moments(5);
    int kills = 0;
    for (; kills < 40; ++kills) {
        const Process job(tiny("run", folder / "killed"), folder);
        std::size_t changes = 2 + moments() % 40;
        std::set<std::string> before;
        ASSERT_TRUE(soon([&] {
            std::set<std::string> now = names_below(folder / "killed");
            if (now != before && changes > 0) --changes;
            before = std::move(now);
            return changes == 0 || job.has_ended();
        }));
        job.signal(SIGKILL);
        const Outcome outcome = job.wait();
        if (outcome.code == 0) break;
        ASSERT_EQ(outcome.code, 128 + SIGKILL) << outcome.err;
    }
    EXPECT_GT(kills, 2);
    succeed(tiny("run", folder / "killed"));
    EXPECT_EQ(weights_of(folder / "killed"), weights_of(folder / "whole"));
}

TEST(Trust, an_interrupt_checkpoints_and_exits_with_130) {
    const Folder folder;
    const Arguments command =
        tiny("teacher", folder / "run",
             {"teacher.steps=100000", "probe.every=0", "checkpoint_seconds=600"});
    const Process job(command, folder);
    const fs::path metrics = folder.path() / "run/teacher/training/metrics.jsonl";
    ASSERT_TRUE(soon([&] { return fs::exists(metrics) || job.has_ended(); }));
    job.signal(SIGINT);
    const Outcome outcome = job.wait();
    EXPECT_EQ(outcome.code, 130);
    expect_contains(outcome.err, "run the same command again to go on");
    EXPECT_FALSE(fs::is_empty(folder.path() / "run/teacher/training/checkpoints"));
}

TEST(Trust, resuming_with_another_config_prints_the_difference_and_fails) {
    const Folder folder;
    succeed(tiny("teacher", folder / "run"));
    const auto before = weights_of(folder / "run");
    const Outcome outcome = run(tiny("teacher", folder / "run", {"teacher.lr=0.5"}));
    EXPECT_NE(outcome.code, 0);
    expect_contains(outcome.err, "teacher.lr");
    expect_contains(outcome.err, "0.5");
    EXPECT_EQ(weights_of(folder / "run"), before);
}

TEST(Trust, a_nan_loss_stops_the_run_and_names_the_last_good_checkpoint) {
    const Folder folder;
    const Outcome outcome = run(
        tiny("teacher", folder / "run", {"teacher.lr=1e30", "teacher.clip=0", "teacher.warmup=0"}));
    EXPECT_EQ(outcome.code, 1);
    expect_contains(outcome.err, "became");
    expect_contains(outcome.err, "checkpoint");
    EXPECT_FALSE(fs::exists(folder.path() / "run/teacher/model.safetensors"));
}

/// One run whose ensemble the tests below sample from and damage.
TEST(Trust, a_pickle_that_would_run_a_command_is_rejected_by_name_and_runs_nothing) {
    const Folder folder;
    const std::string command = "touch " + (folder / "executed");
    std::ofstream(folder / "teacher.pkl", std::ios::binary)
        << "\x80\x04" << "cposix\nsystem\n\x8c" << static_cast<char>(command.size()) << command
        << "\x85R.";
    const Outcome outcome = run({"convert", folder / "teacher.pkl", folder / "model"});
    EXPECT_EQ(outcome.code, 1);
    expect_contains(outcome.err, "\"posix.system\"");
    EXPECT_EQ(folder.files(), 1u);
}

class Ensemble : public testing::Test {
protected:
    static void SetUpTestSuite() {
        shared = new Folder;
        succeed(tiny("run", *shared / "run", {"evaluate.count=50"}));
    }
    static void TearDownTestSuite() {
        delete shared;
        shared = nullptr;
    }
    static Folder* shared;
};

Folder* Ensemble::shared = nullptr;

TEST_F(Ensemble, sampling_twice_gives_the_same_bytes_and_another_seed_others) {
    const Folder folder;
    const auto draw = [&](const std::string& name, const std::string& seed) {
        succeed({"sample", *shared / "run/ensemble", "--count", "20", "--seed", seed, "--out",
                 folder / name});
        return text_of(folder / name);
    };
    const std::string first = draw("a.npz", "4");
    EXPECT_EQ(draw("b.npz", "4"), first);
    EXPECT_NE(draw("c.npz", "5"), first);
}

TEST_F(Ensemble, works_after_a_move) {
    const Folder folder;
    fs::copy(*shared / "run/ensemble", folder / "elsewhere", fs::copy_options::recursive);
    succeed({"sample", folder / "elsewhere", "--count", "3", "--out", folder / "x.npz"});
}

TEST_F(Ensemble, rejects_a_student_of_another_partition) {
    const Folder folder;
    succeed(tiny("run", folder / "other",
                 {"partition.method=random", "evaluate.count=50",
                  "teacher.path=" + (*shared / "run/teacher")}));
    fs::copy(*shared / "run/ensemble", folder / "mixed", fs::copy_options::recursive);
    fs::remove_all(folder / "mixed/students/1");
    fs::copy(folder / "other/ensemble/students/1", folder / "mixed/students/1",
             fs::copy_options::recursive);
    const Outcome outcome = run(
        {"sample", folder / "mixed", "--count", "4", "--class", "7", "--out", folder / "x.npz"});
    EXPECT_EQ(outcome.code, 1);
    expect_contains(outcome.err, "another partition");
    EXPECT_FALSE(fs::exists(folder.path() / "x.npz"));
}

TEST_F(Ensemble, damaged_weights_get_one_message_that_names_the_file) {
    const Folder folder;
    const std::string whole = text_of(*shared / "run/ensemble/students/0/model.safetensors");
    for (const std::string& damaged :
         {std::string(), whole.substr(0, 5), whole.substr(0, whole.size() / 2), whole + "more"}) {
        fs::remove_all(folder / "m");
        fs::copy(*shared / "run/ensemble", folder / "m", fs::copy_options::recursive);
        std::ofstream(folder / "m/students/0/model.safetensors", std::ios::binary) << damaged;
        const Outcome outcome = run(
            {"sample", folder / "m", "--count", "1", "--class", "0", "--out", folder / "x.npz"});
        EXPECT_EQ(outcome.code, 1);
        expect_contains(outcome.err, "model.safetensors");
        EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
        EXPECT_FALSE(fs::exists(folder.path() / "x.npz"));
    }
}

}  // namespace
}  // namespace atelier::end_to_end
