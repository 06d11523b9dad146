#include "atelier/pipeline/start_run.h"

#include <ATen/Parallel.h>

#include <optional>

#include "atelier/core/atomic_file.h"
#include "atelier/core/heap.h"
#include "atelier/core/log.h"
#include "atelier/pipeline/budgets.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/pipeline/run_status.h"

namespace atelier::pipeline {

void start_run(RunContext& context, const StartOptions& options,
               const std::function<void(RunContext&)>& work) {
    parallel::Ranks& ranks = context.ranks();
    RunConfig& config = context.loaded().config;
    // Equal numbers of threads round alike.
    config.threads = ranks.smallest(config.threads);
    config.students.threads = ranks.smallest(config.students.threads);
    check_run(context);
    std::vector<std::string> warnings;
    if (options.trains) {
        warnings = ranks.leader_first("checks", [&] {
            return check_before_training(context.loaded(), context.raw_data().get());
        });
    }
    if (options.all_stages && ranks.leads()) check_stages(context);
    at::set_num_threads(static_cast<int>(context.config().threads));
    core::keep_freed_memory();
    std::optional<core::DirectoryLock> lock;
    if (ranks.leads() && options.locks) lock.emplace(context.output() / options.lock_folder);
    ranks.barrier();  // the others go on where rank 0 has the folder
    if (!ranks.leads()) return work(context);
    // Budgets that are not known yet are recorded with the partition.
    const auto shares = known_shares(config, *context.raw_data());
    if ((options.lock_folder.empty() && shares) ||
        !std::filesystem::exists(context.output() / "run.json"))
        record_plan(context, shares.value_or(std::vector<double>{}));
    if (options.all_stages) core::log::also_write_to((context.output() / "log.txt").string());
    for (const std::string& warning : warnings) core::log::warning("{}", warning);
    if (!ranks.is_alone())
        core::log::info("{}, {} thread{} each", ranks.description(), context.config().threads,
                        context.config().threads == 1 ? "" : "s");
    if (context.config().precision == "bf16" && !context.config().compute().type) {
        core::log::info(
            "this CPU has no bfloat16 instructions that LibTorch could train with; computing in "
            "float32, which is some ten times faster here");
    }
    work(context);
}

}  // namespace atelier::pipeline
