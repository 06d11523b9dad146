#include "atelier/core/shard.h"

#include <string_view>

#include "atelier/core/environment.h"
#include "atelier/core/error.h"
#include "atelier/core/whole_number.h"

namespace atelier::core {

namespace {

constexpr std::int64_t most_shards = 1'000'000;

[[noreturn]] void reject_shard(const std::string& text) {
    throw UsageError(fmt::format(
        "--shard: \"{}\" is no shard; give r/W with r from 1 to W, as in 2/8, auto/W or auto",
        text));
}

/// The number of tasks of a Slurm array whose ids are 0, 1, ..., W-1; nothing for other arrays.
std::optional<std::int64_t> tasks_of_slurm_array() {
    const auto count = environment("SLURM_ARRAY_TASK_COUNT");
    const auto number = count ? whole_number(*count) : std::nullopt;
    if (!number) return std::nullopt;
    const auto is = [](const char* name, std::int64_t expected) {
        const auto value = environment(name);
        return !value || whole_number(*value) == expected;
    };
    if (!is("SLURM_ARRAY_TASK_MIN", 0) || !is("SLURM_ARRAY_TASK_MAX", *number - 1))
        return std::nullopt;
    return number;
}

Shard shard_of_array(const std::optional<std::int64_t>& given) {
    const auto task = array_task();
    if (!task)
        throw UsageError(
            fmt::format("--shard auto: this is no task of a job array, since none of {} is set; "
                        "name the shard, "
                        "as in --shard 2/8",
                        array_variables));
    const auto count = given ? given : tasks_of_slurm_array();
    if (!count)
        throw UsageError(fmt::format(
            "--shard auto: {} says which shard this is, but not of how many (Slurm does for arrays "
            "0 to W-1); write --shard auto/W",
            task->variable));
    if (task->number >= *count)
        throw UsageError(
            fmt::format("--shard auto: {} is {}, and the {} shards are numbered 0 to {}; begin the "
                        "array with 0, as in --array=0-{}",
                        task->variable, task->number, *count, *count - 1, *count - 1));
    return {task->number, *count};
}

}  // namespace

std::string Shard::name() const { return fmt::format("{}/{}", index + 1, count); }

std::optional<ArrayTask> array_task() {
    for (const char* name : {"SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX"}) {
        const auto value = environment(name);
        if (!value) continue;
        // As parallel::place reads it: without RANK, the index is the rank of an Indexed Job.
        if (std::string_view(name) == "JOB_COMPLETION_INDEX" && environment("WORLD_SIZE") &&
            !environment("RANK"))
            throw UsageError(
                "JOB_COMPLETION_INDEX is the number of this rank, since WORLD_SIZE is set; give a "
                "number instead of auto");
        const auto number = whole_number(*value);
        if (!number || *number < 0)
            throw UsageError(
                fmt::format("{} is \"{}\", which is not a number from 0 upwards", name, *value));
        return ArrayTask{*number, name};
    }
    return std::nullopt;
}

Shard shard_of(const std::string& text) {
    if (text == "auto") return shard_of_array(std::nullopt);
    const std::size_t slash = text.find('/');
    if (slash == std::string::npos) reject_shard(text);
    const std::string first = text.substr(0, slash);
    const auto count = whole_number(std::string_view(text).substr(slash + 1));
    if (!count || *count < 1 || *count > most_shards) reject_shard(text);
    if (first == "auto") return shard_of_array(count);
    const auto number = whole_number(first);
    if (!number || *number < 1 || *number > *count) reject_shard(text);
    return {*number - 1, *count};
}

}  // namespace atelier::core
