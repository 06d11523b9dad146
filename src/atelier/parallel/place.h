#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace atelier::parallel {

/// Who a process is among those that were started together.
struct Place {
    int rank = 0, world = 1;          // rank 0 to world-1
    std::optional<int> local_rank{};  // among those of its machine, where the launcher says it
    std::string master_address{};     // the machine of rank 0
    std::uint16_t master_port = 0;
    std::string launcher{};    // "torchrun", "Slurm", ...: for messages; empty: alone
    bool agent_store = false;  // torchrun's agent already keeps a store at that address
    std::string generation{};  // tells restarts by torchrun's agent apart

    bool alone() const { return world == 1; }
};

/// The value of an environment variable; nullopt where it is unset or empty. That of this process
/// is core::environment.
using Environment = std::function<std::optional<std::string>(const char* name)>;

/// Reads the variables of torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK), Open
/// MPI (OMPI_COMM_WORLD_*), PMI (PMI_RANK, PMI_SIZE), Slurm's srun (SLURM_PROCID, SLURM_NTASKS,
/// SLURM_LOCALID, SLURM_JOB_NODELIST) and Kubernetes' Indexed Jobs (JOB_COMPLETION_INDEX,
/// WORLD_SIZE, MASTER_ADDR); the first that are complete count, since launchers start each other.
/// Alone if none are set. Throws core::UsageError where they are incomplete or contradict each
/// other.
Place place_in(const Environment& environment);

/// The first host of Slurm's list: "node[003-007,9],other" -> "node003".
std::string first_host(const std::string& node_list);

}  // namespace atelier::parallel
