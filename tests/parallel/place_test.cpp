#include "atelier/parallel/place.h"

#include <gtest/gtest.h>

#include <map>

#include "core/test_folder.h"

namespace atelier::parallel {
namespace {

using Values = std::map<std::string, std::string>;

Place place_of(const Values& values) {
    return place_in([&](const char* name) -> std::optional<std::string> {
        const auto found = values.find(name);
        if (found == values.end() || found->second.empty()) return std::nullopt;
        return found->second;
    });
}

/// "rank of world (local rank) at address:port".
std::string described(const Values& values) {
    const Place place = place_of(values);
    if (place.alone()) return "alone";
    return fmt::format("{} of {} ({}) at {}:{}", place.rank, place.world,
                       place.local_rank ? std::to_string(*place.local_rank) : "?",
                       place.master_address, place.master_port);
}

std::string refusal(const Values& values) {
    return core::error_of([&] { place_of(values); });
}

const Values torchrun{{"RANK", "3"},
                      {"WORLD_SIZE", "8"},
                      {"LOCAL_RANK", "1"},
                      {"MASTER_ADDR", "node0"},
                      {"MASTER_PORT", "29511"}};
const Values slurm{{"SLURM_PROCID", "5"},  {"SLURM_NTASKS", "8"},
                   {"SLURM_LOCALID", "1"}, {"SLURM_STEP_ID", "0"},
                   {"SLURM_JOB_ID", "77"}, {"SLURM_JOB_NODELIST", "gpu[03-04,07],other"}};
const Values open_mpi{{"OMPI_COMM_WORLD_RANK", "1"},
                      {"OMPI_COMM_WORLD_SIZE", "4"},
                      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                      {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}};
const Values kubernetes{
    {"JOB_COMPLETION_INDEX", "2"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "train-0.train"}};

Values with(Values values, const Values& more) {
    for (const auto& [name, value] : more) values[name] = value;
    return values;
}

TEST(Places, without_variables_a_process_is_alone) {
    EXPECT_EQ(described({}), "alone");
    EXPECT_EQ(described({{"WORLD_SIZE", "1"}}), "alone");
    EXPECT_EQ(described(with(torchrun, {{"RANK", "0"}, {"WORLD_SIZE", "1"}})), "alone");
    // An Indexed Job whose pods have nothing to do with each other.
    EXPECT_EQ(described({{"JOB_COMPLETION_INDEX", "2"}}), "alone");
    EXPECT_EQ(described(with(slurm, {{"SLURM_NTASKS", "1"}, {"SLURM_PROCID", "0"}})), "alone");
}

TEST(Places, every_launcher_is_understood) {
    EXPECT_EQ(described(torchrun), "3 of 8 (1) at node0:29511");
    EXPECT_EQ(described(open_mpi), "1 of 4 (1) at 127.0.0.1:29500");
    EXPECT_EQ(described({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}), "0 of 2 (?) at 127.0.0.1:29500");
    EXPECT_EQ(described(kubernetes), "2 of 4 (?) at train-0.train:29500");
    const Place place = place_of(slurm);
    EXPECT_EQ(place.rank, 5);
    EXPECT_EQ(place.world, 8);
    EXPECT_EQ(place.master_address, "gpu03");
    EXPECT_GE(place.master_port, 20000);
    EXPECT_LT(place.master_port, 32000);
    // Steps of one job on one host do not meet.
    EXPECT_NE(place.master_port, place_of(with(slurm, {{"SLURM_STEP_ID", "1"}})).master_port);
    EXPECT_EQ(place_of(with(slurm, {{"MASTER_ADDR", "ib0"}, {"MASTER_PORT", "9"}})).master_address,
              "ib0");
}

TEST(Places, the_batch_script_of_a_job_is_no_task_of_it) {
    Values script = with(slurm, {{"SLURM_PROCID", "0"}, {"ENVIRONMENT", "BATCH"}});
    EXPECT_NE(described(script), "alone");  // srun passes the script's environment on
    script.erase("SLURM_STEP_ID");
    EXPECT_EQ(described(script), "alone");
    EXPECT_EQ(described(with(script, {{"SLURM_STEP_ID", "4294967291"}})), "alone");
    Values shell = slurm;
    shell.erase("SLURM_PROCID");  // salloc
    EXPECT_EQ(described(shell), "alone");
    // One process for each GPU of the step, not one for each task of the job.
    EXPECT_EQ(place_of(with(slurm, {{"SLURM_STEP_NUM_TASKS", "6"}})).world, 6);
}

TEST(Places, launchers_that_start_each_other_are_told_apart) {
    EXPECT_EQ(described(with(slurm, torchrun)), "3 of 8 (1) at node0:29511");
    // mpirun within a job: Slurm's variables are those of its own helpers.
    const Values within = with(slurm, with(open_mpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}));
    const Place place = place_of(within);
    EXPECT_EQ(place.world, 4);
    EXPECT_EQ(place.master_address, "gpu03");
}

TEST(Places, torchruns_agent_keeps_the_store) {
    EXPECT_FALSE(place_of(torchrun).agent_store);
    const Values elastic = with(torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                           {"TORCHELASTIC_RUN_ID", "r"},
                                           {"TORCHELASTIC_RESTART_COUNT", "2"}});
    EXPECT_TRUE(place_of(elastic).agent_store);
    EXPECT_EQ(place_of(elastic).generation, "r/2");
}

TEST(Places, what_is_incomplete_or_contradicts_itself_is_refused) {
    using core::expect_contains;
    Values values = torchrun;
    values.erase("MASTER_ADDR");
    expect_contains(refusal(values), "WORLD_SIZE is set, and MASTER_ADDR is missing");
    expect_contains(refusal({{"RANK", "0"}}),
                    "RANK is set, and WORLD_SIZE, MASTER_ADDR, MASTER_PORT are missing");
    values = kubernetes;
    values.erase("MASTER_ADDR");
    expect_contains(refusal(values), "and MASTER_ADDR is missing");
    expect_contains(refusal(with(torchrun, {{"RANK", "8"}})), "rank 8 (RANK) of 8 (WORLD_SIZE)");
    expect_contains(refusal(with(torchrun, {{"RANK", "two"}})), "RANK is \"two\"; it must be a");
    expect_contains(refusal(with(torchrun, {{"RANK", "-1"}})), "RANK is \"-1\"");
    expect_contains(refusal(with(torchrun, {{"WORLD_SIZE", "0"}})), "WORLD_SIZE is \"0\"");
    expect_contains(refusal(with(torchrun, {{"MASTER_PORT", "70000"}})),
                    "a number from 1 to 65535");
    expect_contains(refusal({{"OMPI_COMM_WORLD_RANK", "0"}}), "OMPI_COMM_WORLD_SIZE is not");
    expect_contains(refusal(with(kubernetes, {{"RANK", "1"}})), "differ");
    expect_contains(refusal(with(open_mpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}})),
                    "set MASTER_ADDR to its host");
    values = slurm;
    values.erase("SLURM_JOB_NODELIST");
    expect_contains(refusal(values), "neither SLURM_JOB_NODELIST nor MASTER_ADDR");
}

TEST(Places, the_first_host_of_a_list) {
    EXPECT_EQ(first_host("node1"), "node1");
    EXPECT_EQ(first_host("node1,node2"), "node1");
    EXPECT_EQ(first_host("node[001-004,007]"), "node001");
    EXPECT_EQ(first_host("node[7],other"), "node7");
    EXPECT_EQ(first_host("rack[2-3]n[05,09].site,x"), "rack2n05.site");
    core::expect_contains(core::error_of([] { first_host("node[1-2"); }), "not closed");
}

}  // namespace
}  // namespace atelier::parallel
