#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <random>
#include <set>

#include <nlohmann/json.hpp>

#include "atelier/core/safetensors.h"
#include "end_to_end/program.h"

/// Several processes that train one student, as a launcher starts them, over Gloo on this machine.
namespace atelier::end_to_end {
namespace {

using namespace std::chrono_literals;
using Values = std::map<std::string, std::string>;
using Clock = std::chrono::steady_clock;

std::string free_port() {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(socket, any, size), 0);
    EXPECT_EQ(::getsockname(socket, any, &size), 0);
    ::close(socket);
    return std::to_string(ntohs(address.sin_port));
}

/// What a launcher sets for a rank.
using Launcher = std::function<Values(int rank, int world, const std::string& port)>;

Values torchrun(int rank, int world, const std::string& port) {
    return {{"RANK", std::to_string(rank)},
            {"LOCAL_RANK", std::to_string(rank)},
            {"WORLD_SIZE", std::to_string(world)},
            {"MASTER_ADDR", "127.0.0.1"},
            {"MASTER_PORT", port}};
}

/// The processes of one command.
class Ranks {
public:
    Ranks(int world, const Arguments& words, const Launcher& launcher = torchrun) {
        const std::string port = free_port();
        for (int rank = 0; rank < world; ++rank) {
            folders_.push_back(std::make_unique<Folder>());
            processes_.emplace_back(words, *folders_.back(), launcher(rank, world, port));
        }
    }

    const Process& operator[](int rank) const { return processes_[static_cast<std::size_t>(rank)]; }

    std::vector<Outcome> wait() const {
        std::vector<Outcome> outcomes;
        for (const Process& process : processes_) outcomes.push_back(process.wait());
        return outcomes;
    }

    bool have_ended(int but = -1) const {
        for (int rank = 0; rank < static_cast<int>(processes_.size()); ++rank) {
            if (rank != but && !(*this)[rank].has_ended()) return false;
        }
        return true;
    }

private:
    std::vector<std::unique_ptr<Folder>> folders_;
    std::vector<Process> processes_;
};

void expect_codes(const std::vector<Outcome>& outcomes, int code, int but = -1) {
    for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
        if (static_cast<int>(rank) == but) continue;
        EXPECT_EQ(outcomes[rank].code, code) << rank << ": " << outcomes[rank].err;
    }
}

/// Every stage that trains, in four micro-batches: the teacher, TSM of smaller students, DM, and
/// ADM whose GAN weight is found while it trains.
Arguments every_stage(const std::string& command, const std::string& output,
                      const Arguments& more = {}) {
    Arguments all{"teacher.micro_batch=16",
                  "students.widths=[24]",
                  "tsm.steps=6",
                  "tsm.batch=32",
                  "tsm.micro_batch=8",
                  "dm.micro_batch=8",
                  "adm.micro_batch=8",
                  "adm.gan_weight=auto",
                  "teacher.steps=12",
                  "dm.steps=6",
                  "adm.steps=6"};
    all.insert(all.end(), more.begin(), more.end());
    return tiny(command, output, all);
}

std::map<std::string, std::string> metrics_of(const std::string& run) {
    std::map<std::string, std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(run)) {
        if (entry.path().filename() == "metrics.jsonl")
            found[entry.path().lexically_relative(run).string()] = text_of(entry.path());
    }
    return found;
}

TEST(Ranks, end_with_the_same_bytes_for_any_number_of_them) {
    const Folder folder;
    succeed(every_stage("run", folder / "1"));
    const auto weights = weights_of(folder / "1");
    EXPECT_GE(weights.size(), 9U);
    for (const int world : {2, 3, 4}) {
        const std::string output = folder / std::to_string(world);
        const auto outcomes = Ranks(world, every_stage("run", output)).wait();
        expect_codes(outcomes, 0);
        EXPECT_EQ(weights_of(output), weights) << world;
        EXPECT_EQ(metrics_of(output), metrics_of(folder / "1")) << world;
        EXPECT_TRUE(fs::exists(output + "/report.html"));
        EXPECT_EQ(outcomes[1].err, "");  // rank 0 speaks
        expect_contains(text_of(output + "/log.txt"),
                        std::to_string(world) + " ranks on 1 machine, started by torchrun");
    }
}

TEST(Ranks, of_eight_end_with_the_bytes_of_one) {
    const Folder folder;
    const Arguments more{"teacher.micro_batch=8"};  // a micro-batch for each
    succeed(every_stage("teacher", folder / "1", more));
    expect_codes(Ranks(8, every_stage("teacher", folder / "8", more)).wait(), 0);
    EXPECT_EQ(weights_of(folder / "8"), weights_of(folder / "1"));
}

TEST(Ranks, that_share_out_the_optimiser_end_with_the_same_bytes_and_keep_less) {
    const Folder folder;
    succeed(every_stage("run", folder / "1"));
    const auto weights = weights_of(folder / "1");
    for (const int world : {1, 2, 4}) {
        const std::string output = folder / ("shared-" + std::to_string(world));
        const auto outcomes =
            Ranks(world, every_stage("run", output, {"optimizer_sharding=true"})).wait();
        expect_codes(outcomes, 0);
        EXPECT_EQ(weights_of(output), weights) << world;
        EXPECT_EQ(metrics_of(output), metrics_of(folder / "1")) << world;
        const std::string log = text_of(output + "/log.txt");
        const std::size_t line = log.find("teacher: moments and averages take ");
        ASSERT_EQ(line == std::string::npos, world == 1);
        if (world == 1) continue;
        double all = 0, most = 0;
        ASSERT_EQ(std::sscanf(log.c_str() + line,
                              "teacher: moments and averages take %lf MB, of which no rank keeps "
                              "more than %lf",
                              &all, &most),
                  2);
        EXPECT_GE(most, all / world);
        EXPECT_LE(most, 1.3 * all / world);
    }
}

TEST(Ranks, of_low_rank_students_in_bfloat16_end_with_the_same_bytes) {
    const Folder folder;
    const Arguments more{"students.widths=[]", "students.lora_rank=4", "precision=bf16",
                         "adm.steps=0"};
    succeed(every_stage("run", folder / "1", more));
    const auto weights = weights_of(folder / "1");
    expect_codes(Ranks(2, every_stage("run", folder / "2", more)).wait(), 0);
    EXPECT_EQ(weights_of(folder / "2"), weights);
}

TEST(Ranks, that_outnumber_the_micro_batches_are_told_and_change_nothing) {
    const Folder folder;
    const Arguments more{"students.widths=[]", "dm.micro_batch=0", "adm.micro_batch=16"};
    succeed(every_stage("run", folder / "1", more));
    const auto outcomes = Ranks(3, every_stage("run", folder / "3", more)).wait();
    expect_codes(outcomes, 0);
    EXPECT_EQ(weights_of(folder / "3"), weights_of(folder / "1"));
    expect_contains(outcomes[0].err, "student 0 dm: 3 ranks share 1 micro-batch, so some have");
    expect_contains(outcomes[0].err, "student 1 adm: 3 ranks share 2 micro-batches");
}

/// The largest relative difference of two models' weights.
double difference(const std::string& a, const std::string& b) {
    const core::SafetensorsFile one(a), other(b);
    double most = 0;
    for (const auto& [name, entry] : one.entries()) {
        const auto x = one.bytes(name), y = other.bytes(name);
        const auto* left = reinterpret_cast<const float*>(x.data());
        const auto* right = reinterpret_cast<const float*>(y.data());
        double size = 0, apart = 0;
        for (std::size_t i = 0; i < x.size() / sizeof(float); ++i) {
            size = std::max(size, std::abs(static_cast<double>(left[i])));
            apart = std::max(apart, std::abs(static_cast<double>(left[i]) - right[i]));
        }
        if (size > 0) most = std::max(most, apart / size);
    }
    return most;
}

TEST(Ranks, that_sum_floats_end_nearby) {
    const Folder folder;
    const Arguments more{"students.widths=[]", "adm.steps=0", "reduction=float", "dm.lr=1e-5",
                         "dm.fake_lr=1e-5"};
    succeed(every_stage("run", folder / "1", more));
    expect_codes(Ranks(4, every_stage("run", folder / "4", more)).wait(), 0);
    const std::string model = "/students/0/dm/model.safetensors";
    EXPECT_LT(difference(folder / ("1" + model), folder / ("4" + model)), 1e-5);
    // What was summed in one way does not go on in the other.
    const Outcome outcome = run(every_stage("run", folder / "1", {"students.widths=[]"}));
    EXPECT_EQ(outcome.code, 2);
    expect_contains(outcome.err, "reduction: \"float\" -> \"exact\"");
}

/// A DM stage of many steps on a teacher that is there.
class LongStage : public testing::Test {
protected:
    static void SetUpTestSuite() {
        folder_ = new Folder;
        succeed(every_stage("teacher", teacher(), {"dm.steps=0"}));
        expected_ = weights_of(trained("alone", [](const Arguments& words) { succeed(words); }));
    }
    static void TearDownTestSuite() { delete std::exchange(folder_, nullptr); }

    static std::string teacher() { return *folder_ / "teacher"; }

    /// Calls `train` with the command, in a new run that has the teacher; returns its folder.
    static std::string trained(const std::string& name,
                               const std::function<void(const Arguments&)>& train) {
        const std::string output = *folder_ / name;
        fs::copy(teacher(), output, fs::copy_options::recursive);
        train(words(output));
        return output;
    }

    static Arguments words(const std::string& output) {
        return every_stage("distill", output,
                           {"students.widths=[]", "dm.steps=150", "adm.steps=0", "dm.micro_batch=4",
                            "checkpoint_seconds=0.3", "pairs.count=0", "dm.regression=none",
                            "adm.regression=none", "--student", "1"});
    }

    static fs::path checkpoints(const std::string& output) {
        return fs::path(output) / "students/1/dm/training/checkpoints";
    }

    /// The names of the checkpoints that are there.
    static std::set<std::string> checkpoints_of(const std::string& output) {
        std::set<std::string> names;
        std::error_code not_yet;
        for (const auto& file : fs::directory_iterator(checkpoints(output), not_yet)) {
            if (const auto name = file.path().filename().string(); name.starts_with("step-"))
                names.insert(name);
        }
        return names;
    }

    /// Waits until there is a checkpoint other than `before`.
    static bool has_begun(const std::string& output, const std::set<std::string>& before = {}) {
        return soon([&] {
            const auto now = checkpoints_of(output);
            return !std::ranges::includes(before, now);
        });
    }

    static void expect_same_result(const std::string& output) {
        EXPECT_EQ(weights_of(output), expected_);
    }

    static Folder* folder_;
    static std::map<std::string, std::string> expected_;
};

Folder* LongStage::folder_ = nullptr;
std::map<std::string, std::string> LongStage::expected_;

TEST_F(LongStage, stops_on_all_ranks_and_goes_on_with_another_number) {
    const std::string output = trained("stopped", [](const Arguments& words) {
        for (const int number : {SIGTERM, SIGUSR1}) {
            const auto before = checkpoints_of(*folder_ / "stopped");
            const Ranks two(2, words);
            ASSERT_TRUE(has_begun(*folder_ / "stopped", before));
            // What the kernel sends when Gloo writes to a rank that is gone ends nobody.
            two[1].signal(SIGPIPE);
            two[1].signal(number);
            const auto outcomes = two.wait();
            expect_codes(outcomes, 130);
            expect_contains(outcomes[0].err, "student 1 dm stopped at step ");
            // After the same update on both.
            const auto said = [](const Outcome& outcome) {
                return outcome.err.substr(outcome.err.find("stopped at step"));
            };
            EXPECT_EQ(said(outcomes[0]), said(outcomes[1]));
        }
        expect_codes(Ranks(4, words).wait(), 0);
    });
    expect_same_result(output);
    expect_contains(text_of(output + "/students/1/dm/stage.json"), "finished");
}

TEST_F(LongStage, is_resumed_by_any_number_of_ranks_that_share_out_the_optimiser_or_do_not) {
    const std::string output = trained("shared", [](const Arguments& words) {
        Arguments shared = words;
        shared.insert(shared.end() - 2, "optimizer_sharding=true");
        for (const auto& [world, command] : {std::pair(2, shared), std::pair(3, shared)}) {
            const auto before = checkpoints_of(*folder_ / "shared");
            const Ranks ranks(world, command);
            ASSERT_TRUE(has_begun(*folder_ / "shared", before));
            ranks[world - 1].signal(SIGTERM);
            expect_codes(ranks.wait(), 130);
        }
        succeed(words);
    });
    expect_same_result(output);
}

TEST_F(LongStage, refuses_a_process_that_is_none_of_its_ranks) {
    trained("locked", [](const Arguments& words) {
        const Ranks two(2, words);
        ASSERT_TRUE(has_begun(*folder_ / "locked"));
        const Outcome other = run(words);
        EXPECT_EQ(other.code, 1);
        expect_contains(other.err, "another process is working in this directory");
        two[0].signal(SIGINT);
        expect_codes(two.wait(), 130);
    });
}

int rounds() {
    const char* often = std::getenv("ATELIER_RANK_KILLS");
    return often ? std::atoi(often) : 3;
}

TEST_F(LongStage, survives_the_death_of_any_rank_at_any_moment) {
    std::mt19937 chance(std::random_device{}());
    int deaths = 0;
    std::chrono::duration<double> longest{};
    for (int round = 0; round < rounds(); ++round) {
        const int world = 2 + round % 3,
                  victim =
                      round == 0 ? 0 : static_cast<int>(chance() % static_cast<unsigned>(world));
        const auto moment = std::chrono::milliseconds(chance() % 2500);
        SCOPED_TRACE(fmt::format("rank {} of {} after {} ms", victim, world, moment.count()));
        const std::string name = fmt::format("killed-{}", round);
        const std::string output = trained(name, [&](const Arguments& words) {
            const Ranks ranks(world, words);
            // Nobody knows of a rank that has not come yet.
            const fs::path lock = fs::path(*folder_ / name) / "students/1/.lock";
            ASSERT_TRUE(soon([&] { return fs::exists(lock); }));
            std::this_thread::sleep_for(moment);
            const bool finished = ranks.have_ended();
            ranks[victim].signal(SIGKILL);
            const auto begin = Clock::now();
            while (!ranks.have_ended(victim) && Clock::now() - begin < 60s)
                std::this_thread::sleep_for(20ms);
            const auto needed = Clock::now() - begin;
            const auto outcomes = ranks.wait();
            if (finished || outcomes[static_cast<std::size_t>(victim)].code != 128 + SIGKILL)
                return;
            EXPECT_LT(needed, 20s);
            ++deaths;
            longest = std::max(longest, std::chrono::duration<double>(needed));
            expect_codes(outcomes, 75, victim);
            for (int rank = 0; rank < world; ++rank) {
                const std::string& said = outcomes[static_cast<std::size_t>(rank)].err;
                if (rank == victim) continue;
                expect_contains(said, fmt::format("rank {} of {} (", victim, world));
                expect_contains(said, "the same command goes on");
            }
        });
        expect_codes(Ranks(1 + round % 3, words(output)).wait(), 0);
        expect_same_result(output);
        fs::remove_all(output);
    }
    std::cout << fmt::format("{} ranks killed while others worked; these ended within {:.2f} s\n",
                             deaths, longest.count());
}

TEST_F(LongStage, ends_where_a_rank_is_silent) {
    for (const int victim : {1, 0}) {
        trained(fmt::format("silent-{}", victim), [&](const Arguments& words) {
            const Ranks two(2, words);
            ASSERT_TRUE(has_begun(*folder_ / fmt::format("silent-{}", victim)));
            two[victim].signal(SIGSTOP);
            const auto begin = Clock::now();
            while (!two.have_ended(victim) && Clock::now() - begin < 60s)
                std::this_thread::sleep_for(20ms);
            EXPECT_LT(Clock::now() - begin, 20s) << "10 s on a machine that does nothing else";
            two[victim].signal(SIGKILL);
            two[victim].signal(SIGCONT);
            const auto outcomes = two.wait();
            expect_codes(outcomes, 75, victim);
            const std::string& said = outcomes[static_cast<std::size_t>(1 - victim)].err;
            expect_contains(said, "has given no sign of life for 8 s. student 1 dm was at step ");
            expect_contains(said, "checkpoints/step-");
        });
    }
}

class Launchers : public testing::TestWithParam<std::pair<const char*, Launcher>> {};

TEST_P(Launchers, start_ranks) {
    const Folder folder;
    const Arguments words = every_stage("teacher", folder / "run");
    const auto outcomes = Ranks(2, words, GetParam().second).wait();
    expect_codes(outcomes, 0);
    expect_contains(outcomes[0].err, "2 ranks on 1 machine, started by ");
}

INSTANTIATE_TEST_SUITE_P(
    Of, Launchers,
    testing::Values(
        std::pair<const char*, Launcher>{"slurm",
                                         [](int rank, int world, const std::string& port) {
                                             return Values{{"SLURM_PROCID", std::to_string(rank)},
                                                           {"SLURM_LOCALID", std::to_string(rank)},
                                                           {"SLURM_NTASKS", std::to_string(world)},
                                                           {"SLURM_STEP_ID", "0"},
                                                           {"SLURM_JOB_ID", port},
                                                           {"SLURM_JOB_NODELIST", "localhost"}};
                                         }},
        std::pair<const char*, Launcher>{
            "open_mpi",
            [](int rank, int world, const std::string& port) {
                return Values{{"OMPI_COMM_WORLD_RANK", std::to_string(rank)},
                              {"OMPI_COMM_WORLD_SIZE", std::to_string(world)},
                              {"OMPI_COMM_WORLD_LOCAL_RANK", std::to_string(rank)},
                              {"MASTER_PORT", port}};
            }},
        std::pair<const char*, Launcher>{"mpich",
                                         [](int rank, int world, const std::string& port) {
                                             return Values{{"PMI_RANK", std::to_string(rank)},
                                                           {"PMI_SIZE", std::to_string(world)},
                                                           {"MASTER_PORT", port}};
                                         }},
        std::pair<const char*, Launcher>{"kubernetes",
                                         [](int rank, int world, const std::string& port) {
                                             return Values{
                                                 {"JOB_COMPLETION_INDEX", std::to_string(rank)},
                                                 {"WORLD_SIZE", std::to_string(world)},
                                                 {"MASTER_ADDR", "localhost"},
                                                 {"MASTER_PORT", port}};
                                         }}),
    [](const auto& info) { return std::string(info.param.first); });

const fs::path torchrun_itself = fs::path(ATELIER_SOURCE_DIR) / ".venv/bin/torchrun";

/// It imports torch, whose CUDA build needs more of NVIDIA's libraries than Atelier does.
bool torchrun_starts() {
    return fs::exists(torchrun_itself) &&
           std::system((torchrun_itself.string() + " --help > /dev/null 2>&1").c_str()) == 0;
}

TEST(Launchers, torchrun_itself_starts_ranks) {
    if (!torchrun_starts()) GTEST_SKIP() << "torchrun is not installed, or cannot import torch";
    const Folder folder, output;
    Arguments words{"--no-python", "--nproc-per-node=2", "--master-port=" + free_port(),
                    ATELIER_PROGRAM};
    for (const std::string& word : every_stage("teacher", folder / "run")) words.push_back(word);
    const Outcome outcome = Process(words, output, {}, torchrun_itself.c_str()).wait();
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    expect_contains(outcome.err, "2 ranks on 1 machine, started by torchrun");
    EXPECT_TRUE(fs::exists(folder / "run/teacher/model.safetensors"));
}

/// The processes that `parent` has started.
std::vector<pid_t> children_of(pid_t parent) {
    std::istringstream words(text_of(fmt::format("/proc/{0}/task/{0}/children", parent)));
    return {std::istream_iterator<pid_t>(words), {}};
}

TEST_F(LongStage, is_started_again_by_torchrun_when_a_rank_has_died) {
    if (!torchrun_starts()) GTEST_SKIP() << "torchrun is not installed, or cannot import torch";
    const std::string output = trained("restarted", [](const Arguments& command) {
        const Folder folder;
        Arguments words{"--no-python",
                        "--nproc-per-node=2",
                        "--max-restarts=3",
                        "--monitor-interval=0.1",
                        "--master-port=" + free_port(),
                        ATELIER_PROGRAM};
        words.insert(words.end(), command.begin(), command.end());
        const Process agent(words, folder, {}, torchrun_itself.c_str());
        ASSERT_TRUE(has_begun(*folder_ / "restarted"));
        const std::vector<pid_t> ranks = children_of(agent.pid());
        ASSERT_EQ(ranks.size(), 2U);
        ::kill(ranks[1], SIGKILL);
        const Outcome outcome = agent.wait();
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        expect_contains(outcome.err, "the same command goes on");
    });
    expect_same_result(output);
}

TEST(Launchers, whose_variables_contradict_each_other_are_refused) {
    const Folder folder, output;
    const Outcome outcome = Process(every_stage("teacher", folder / "run"), output,
                                    {{"RANK", "2"},
                                     {"WORLD_SIZE", "2"},
                                     {"MASTER_ADDR", "127.0.0.1"},
                                     {"MASTER_PORT", "29500"}})
                                .wait();
    EXPECT_EQ(outcome.code, 2);
    expect_contains(outcome.err, "rank 2 (RANK) of 2 (WORLD_SIZE); ranks are 0 to 1");
    EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST(Ranks, end_together_where_one_of_them_fails) {
    const Folder folder;
    // The folder of rank 0 cannot be made; the others would be content.
    std::ofstream(folder / "file") << "in the way";
    const auto outcomes = Ranks(2, every_stage("teacher", folder / "file")).wait();
    expect_codes(outcomes, 1);
    const auto wrong =
        Ranks(2, every_stage("teacher", folder / "run", {"teacher.stepps=3"})).wait();
    expect_codes(wrong, 2);
    expect_contains(wrong[1].err, "rank 1: atelier: ");
}

}  // namespace
}  // namespace atelier::end_to_end
