#include "atelier/parallel/place.h"

#include <limits>
#include <vector>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/whole_number.h"

namespace atelier::parallel {

namespace {

constexpr std::uint16_t usual_port = 29500;  // torch's
// Ports derived from a job's number lie below those that systems give to outgoing connections.
constexpr std::uint64_t first_port = 20000, port_count = 12000;
// From here on, Slurm's step numbers stand for batch scripts and interactive shells.
constexpr std::int64_t first_special_step = 0xfffffff0;

class Variables {
public:
    explicit Variables(const Environment& environment) : environment_(environment) {}

    std::optional<std::string> text(const char* name) const { return environment_(name); }
    bool has(const char* name) const { return text(name).has_value(); }

    /// Throws core::UsageError where it is set to anything but a number from `least` to `most`.
    std::optional<std::int64_t> number(const char* name, std::int64_t least,
                                       std::int64_t most) const {
        const auto value = text(name);
        if (!value) return std::nullopt;
        const auto number = core::whole_number(*value);
        if (!number || *number < least || *number > most)
            throw core::UsageError(
                fmt::format("the environment variable {} is \"{}\"; it must be a number from {} to "
                            "{}",
                            name, *value, least, most));
        return number;
    }

    std::optional<int> rank(const char* name) const { return small(name, 0); }
    std::optional<int> size(const char* name) const { return small(name, 1); }

private:
    std::optional<int> small(const char* name, std::int64_t least) const {
        constexpr std::int64_t most = 1 << 20;
        const auto value = number(name, least, most);
        return value ? std::optional(static_cast<int>(*value)) : std::nullopt;
    }

    const Environment& environment_;
};

/// Rank and number of ranks from two variables; nullopt where neither is set.
std::optional<Place> place_of(const Variables& variables, const char* rank_name,
                              const char* size_name, const std::string& launcher) {
    const auto rank = variables.rank(rank_name);
    const auto size = variables.size(size_name);
    if (!rank && !size) return std::nullopt;
    if (!rank || !size)
        throw core::UsageError(
            fmt::format("the environment variable {} is set and {} is not; {} sets both",
                        rank ? rank_name : size_name, rank ? size_name : rank_name, launcher));
    if (*rank >= *size)
        throw core::UsageError(
            fmt::format("the environment says rank {} ({}) of {} ({}); ranks are 0 to {}", *rank,
                        rank_name, *size, size_name, *size - 1));
    Place place;
    place.rank = *rank;
    place.world = *size;
    place.launcher = launcher;
    return place;
}

std::uint16_t port_of_job(const std::string& job) {
    return static_cast<std::uint16_t>(first_port + core::fnv1a(job) % port_count);
}

std::optional<std::uint16_t> given_port(const Variables& variables) {
    const auto port = variables.number("MASTER_PORT", 1, std::numeric_limits<std::uint16_t>::max());
    return port ? std::optional(static_cast<std::uint16_t>(*port)) : std::nullopt;
}

/// "1234.0": job and step.
std::optional<std::string> slurm_job(const Variables& variables) {
    const auto job = variables.text("SLURM_JOB_ID");
    if (!job) return std::nullopt;
    return *job + "." +
           variables.text("SLURM_STEP_ID").value_or(variables.text("SLURM_STEPID").value_or(""));
}

std::optional<std::string> slurm_host(const Variables& variables) {
    for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
        if (const auto list = variables.text(name)) return first_host(*list);
    }
    return std::nullopt;
}

std::optional<Place> by_torch(const Variables& variables) {
    for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
        if (!variables.has(name)) return std::nullopt;
    }
    Place place = *place_of(variables, "RANK", "WORLD_SIZE", "torchrun");
    place.local_rank = variables.rank("LOCAL_RANK");
    place.master_address = *variables.text("MASTER_ADDR");
    place.master_port = *given_port(variables);
    place.agent_store = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
    place.generation = variables.text("TORCHELASTIC_RUN_ID").value_or("") + "/" +
                       variables.text("TORCHELASTIC_RESTART_COUNT").value_or("0");
    return place;
}

/// Address and port of ranks that MPI started: MASTER_ADDR and MASTER_PORT, else what Slurm knows
/// of the job, else this machine if all of them are on it.
void find_master(const Variables& variables, std::optional<int> local_size, Place& place) {
    const auto address = variables.text("MASTER_ADDR"), host = slurm_host(variables);
    if (address) place.master_address = *address;
    else if (local_size.value_or(place.world) == place.world) place.master_address = "127.0.0.1";
    else if (host) place.master_address = *host;
    else
        throw core::UsageError(
            fmt::format("{} started {} ranks on several machines, and nothing says where rank 0 "
                        "is: set MASTER_ADDR to its host, e.g. mpirun -x MASTER_ADDR=node1",
                        place.launcher, place.world));
    std::uint16_t port = usual_port;
    for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "SLURM_JOB_ID"}) {
        if (const auto job = variables.text(name)) {
            port = port_of_job(*job);
            break;
        }
    }
    place.master_port = given_port(variables).value_or(port);
}

std::optional<Place> by_open_mpi(const Variables& variables) {
    auto place =
        place_of(variables, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun");
    if (!place) return std::nullopt;
    place->local_rank = variables.rank("OMPI_COMM_WORLD_LOCAL_RANK");
    find_master(variables, variables.size("OMPI_COMM_WORLD_LOCAL_SIZE"), *place);
    return place;
}

std::optional<Place> by_pmi(const Variables& variables) {
    auto place = place_of(variables, "PMI_RANK", "PMI_SIZE", "mpirun (PMI)");
    if (!place) return std::nullopt;
    place->local_rank = variables.rank("MPI_LOCALRANKID");
    // srun --mpi=pmi2 sets these variables as well, and knows the hosts.
    std::optional<int> local_size = variables.size("MPI_LOCALNRANKS");
    if (!local_size && slurm_host(variables)) local_size = 0;
    find_master(variables, local_size, *place);
    return place;
}

/// Whether this is a task that srun started, not the batch script of a job, in which
/// SLURM_NTASKS and SLURM_PROCID=0 are set too.
bool is_slurm_task(const Variables& variables) {
    if (!variables.has("SLURM_PROCID")) return false;
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    auto step = variables.number("SLURM_STEP_ID", 0, most);
    if (!step) step = variables.number("SLURM_STEPID", 0, most);
    return step ? *step < first_special_step : variables.text("ENVIRONMENT") != "BATCH";
}

std::optional<Place> by_slurm(const Variables& variables) {
    if (!is_slurm_task(variables)) return std::nullopt;
    const char* size = variables.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS"
                       : variables.has("SLURM_NTASKS")       ? "SLURM_NTASKS"
                                                             : "SLURM_NPROCS";
    if (!variables.has(size)) return std::nullopt;
    Place place = *place_of(variables, "SLURM_PROCID", size, "Slurm's srun");
    place.local_rank = variables.rank("SLURM_LOCALID");
    if (place.alone()) return place;
    const auto address = variables.text("MASTER_ADDR"), host = slurm_host(variables);
    if (!address && !host)
        throw core::UsageError(
            "Slurm's srun started several tasks, but neither SLURM_JOB_NODELIST nor MASTER_ADDR "
            "says where the first of them is");
    place.master_address = address ? *address : *host;
    place.master_port =
        given_port(variables).value_or(port_of_job(slurm_job(variables).value_or("")));
    return place;
}

std::optional<Place> by_kubernetes(const Variables& variables) {
    for (const char* name : {"JOB_COMPLETION_INDEX", "WORLD_SIZE", "MASTER_ADDR"}) {
        if (!variables.has(name)) return std::nullopt;
    }
    Place place =
        *place_of(variables, "JOB_COMPLETION_INDEX", "WORLD_SIZE", "Kubernetes' Indexed Job");
    if (const auto rank = variables.rank("RANK"); rank && *rank != place.rank)
        throw core::UsageError(
            fmt::format("the environment variables RANK ({}) and JOB_COMPLETION_INDEX ({}) differ; "
                        "leave RANK unset",
                        *rank, place.rank));
    place.master_address = *variables.text("MASTER_ADDR");
    place.master_port = given_port(variables).value_or(usual_port);
    return place;
}

/// Some of torchrun's variables, and nobody else's: most likely one was forgotten.
void reject_incomplete(const Variables& variables) {
    const auto size = variables.size("WORLD_SIZE");
    if (size == 1 || (!size && !variables.has("RANK"))) return;
    const bool indexed = variables.has("JOB_COMPLETION_INDEX");
    std::vector<std::string> missing;
    for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
        const bool optional = indexed && (name == std::string_view("RANK") ||
                                          name == std::string_view("MASTER_PORT"));
        if (!optional && !variables.has(name)) missing.emplace_back(name);
    }
    throw core::UsageError(fmt::format(
        "the environment variable {} is set, and {} missing: set all of RANK, "
        "WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun does, or unset it",
        size ? "WORLD_SIZE" : "RANK",
        fmt::format("{} {}", fmt::join(missing, ", "), missing.size() == 1 ? "is" : "are")));
}

}  // namespace

Place place_in(const Environment& environment) {
    const Variables variables(environment);
    for (const auto by : {by_torch, by_open_mpi, by_pmi, by_slurm, by_kubernetes}) {
        if (auto place = by(variables)) return *place;
    }
    reject_incomplete(variables);
    return {};
}

std::string first_host(const std::string& node_list) {
    std::string host;
    for (std::size_t i = 0; i < node_list.size() && node_list[i] != ',';) {
        if (node_list[i] != '[') {
            host += node_list[i++];
            continue;
        }
        const std::size_t end = node_list.find_first_of(",-]", i + 1);
        const std::size_t closing = node_list.find(']', i);
        if (end == std::string::npos || closing == std::string::npos)
            throw core::UsageError(fmt::format(
                "Slurm's list of nodes \"{}\" has a bracket that is not closed", node_list));
        host += node_list.substr(i + 1, end - i - 1);
        i = closing + 1;
    }
    return host;
}

}  // namespace atelier::parallel
