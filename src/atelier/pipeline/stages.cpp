#include "atelier/pipeline/stages.h"

#include <ATen/Parallel.h>

#include <utility>

#include <fmt/ranges.h>

#include "atelier/conditions/budget.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/inference/device.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/pipeline/run_status.h"

namespace atelier::pipeline {

namespace {

/// Whether students' sizes are given, which may differ from the teacher's.
bool may_need_tsm(const RunConfig& config) {
    const StudentsConfig& students = config.students;
    const bool sized =
        !students.widths.empty() || !students.depths.empty() || !students.channel_mult.empty();
    return sized && students.tsm && students.start.empty() && config.tsm.steps > 0 &&
           !config.trunk.exists();
}

template <class Settings>
TrainingWork work_of(const Settings& settings, std::int64_t fake_updates = 0) {
    const std::int64_t batch = settings.batch, micro_batch = settings.micro_batch;
    return {settings.steps, batch, micro_batch > 0 && micro_batch < batch ? micro_batch : batch,
            fake_updates};
}

std::optional<TrainingWork> work_of(const RunConfig& config, StageKind kind) {
    switch (kind) {
        case StageKind::teacher:
            if (!config.teacher.path.empty()) return std::nullopt;
            return work_of(config.teacher.training);
        case StageKind::tsm:
            return work_of(config.tsm);
        case StageKind::dm:
        case StageKind::adm:
            return work_of(config.matching(kind), config.matching(kind).fake_updates);
        case StageKind::partition:
        case StageKind::pairs:
        case StageKind::ensemble:
        case StageKind::evaluation:
        case StageKind::report:
            break;
    }
    return std::nullopt;
}

void partition_and_check(RunContext& context) {
    const RunConfig& config = context.config();
    check_cells(config, context.split().owners, *context.raw_data());
    const std::vector<double>& shares = context.shares();
    if (shares.empty()) return;
    for (const StageKind kind : student_stages(config)) {
        if (kind == StageKind::tsm) continue;
        core::log::info(
            "{} updates of students 0 to {}, by students.budget: {}", name_of(kind),
            config.partition.students - 1,
            fmt::join(conditions::divide_steps(config.matching(kind).steps, shares), ", "));
    }
    record_plan(context, shares);
}

std::function<void(RunContext&)> function_of(StageKind kind, std::optional<std::int64_t> student) {
    switch (kind) {
        case StageKind::teacher:
            return make_teacher;
        case StageKind::partition:
            return partition_and_check;
        case StageKind::pairs:
            return make_pairs;
        case StageKind::tsm:
        case StageKind::dm:
        case StageKind::adm:
            return [kind, student](RunContext& context) { make_student(context, *student, kind); };
        case StageKind::ensemble:
            return make_ensemble;
        case StageKind::evaluation:
            return make_evaluation;
        case StageKind::report:
            return make_report;
    }
    return {};
}

/// Trains every student in a process of its own, so that they share neither threads nor memory, and
/// each has a GPU of its own where there are several.
void train_in_parallel(RunContext& context) {
    const RunConfig& config = context.config();
    const int gpus = context.device().is_cuda() ? inference::usable_gpus() : 0;
    std::vector<std::vector<std::string>> commands;
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        std::vector<std::string> command{std::filesystem::read_symlink("/proc/self/exe").string(),
                                         "distill", context.loaded().path};
        command.insert(command.end(), context.loaded().overrides.begin(),
                       context.loaded().overrides.end());
        // Adjusted values, so that the processes do not repeat the warnings about them.
        command.push_back(fmt::format("threads={}", config.threads));
        command.push_back(fmt::format("students.threads={}", config.students.threads));
        command.push_back(fmt::format("students.parallel={}", config.students.parallel));
        if (const auto device = inference::device_of_process(config.device, k, gpus);
            device != config.device)
            command.push_back("device=" + device);
        if (config.evaluation.classifier.empty()) command.push_back("evaluate.classifier=");
        command.insert(command.end(), {"--student", std::to_string(k), "--checked"});
        commands.push_back(std::move(command));
    }
    core::run_processes(commands, static_cast<int>(config.students.parallel));
}

/// Does a stage. All ranks train it together; what does not train is rank 0's work, for which the
/// others wait.
void do_together(const Stage& stage, RunContext& context) {
    if (stage.work || context.ranks().leads()) stage.run(context);
    context.ranks().barrier();
}

void run_students(RunContext& context) {
    const std::int64_t students = context.config().partition.students;
    const bool alone = context.ranks().is_alone();  // otherwise all train one student at a time
    if (context.config().trunk.exists()) run_student(context, trunk);
    bool missing = false;
    for (std::int64_t k = 0; k < students; ++k) missing = missing || !student_finished(context, k);
    if (alone && missing && context.config().students.parallel > 1 && students > 1)
        return train_in_parallel(context);
    for (std::int64_t k = 0; k < students; ++k) run_student(context, k);
    at::set_num_threads(static_cast<int>(context.config().threads));
}

}  // namespace

std::vector<StageKind> student_stages(const RunConfig& config) {
    std::vector<StageKind> kinds;
    if (may_need_tsm(config)) kinds.push_back(StageKind::tsm);
    if (config.dm.steps > 0) kinds.push_back(StageKind::dm);
    if (config.adm.steps > 0) kinds.push_back(StageKind::adm);
    return kinds;
}

StageKind last_student_stage(const RunConfig& config) {
    const std::vector<StageKind> kinds = student_stages(config);
    if (kinds.empty() || kinds.back() == StageKind::tsm)
        throw core::UsageError(
            "dm.steps and adm.steps are both 0; a student needs at least one of the stages");
    return kinds.back();
}

std::vector<Stage> stages(const RunConfig& config, std::span<const double> shares) {
    RunConfig bound = config;
    const core::Schema schema = schema_of(bound);
    std::vector<Stage> list;
    const auto add = [&](StageKind kind, std::optional<std::int64_t> student = {}) {
        list.push_back({kind, student, flat_keys(stage_values_of(schema, config, kind)),
                        work_of(student ? config.of_student(*student, shares) : config, kind),
                        function_of(kind, student)});
    };
    for (const StageKind kind : {StageKind::teacher, StageKind::partition}) add(kind);
    if (config.pairs.count > 0 && config.pairs.path.empty()) add(StageKind::pairs);
    if (config.trunk.exists()) {
        const RunConfig of_trunk = config.of_trunk();
        for (const StageKind kind : student_stages(of_trunk))
            list.push_back({kind, trunk, flat_keys(trunk_values_of(config, kind)),
                            work_of(of_trunk, kind), function_of(kind, trunk)});
    }
    const std::vector<StageKind> of_student = student_stages(config);
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        for (const StageKind kind : of_student) add(kind, k);
    }
    for (const StageKind kind : {StageKind::ensemble, StageKind::evaluation, StageKind::report})
        add(kind);
    return list;
}

void run_stages(RunContext& context) {
    last_student_stage(context.config());
    bool students_are_done = false;
    for (const Stage& stage : stages(context.config())) {
        if (!stage.student) do_together(stage, context);
        else if (!std::exchange(students_are_done, true)) run_students(context);
    }
}

void run_stages_of(RunContext& context, StageKind kind) {
    for (const Stage& stage : stages(context.config())) {
        if (stage.kind == kind) do_together(stage, context);
    }
}

void run_student(RunContext& context, std::int64_t student, std::optional<StageKind> only) {
    const RunConfig& config = context.config();
    const std::vector<StageKind> kinds =
        student_stages(student == trunk ? config.of_trunk() : config);
    const bool has_tsm = !kinds.empty() && kinds.front() == StageKind::tsm;
    if (!has_tsm && only.value_or(StageKind::tsm) == StageKind::tsm)
        make_student(context, student, StageKind::tsm);  // says why
    for (const Stage& stage : stages(context.config())) {
        if (stage.student == student && (!only || *only == stage.kind)) do_together(stage, context);
    }
}

}  // namespace atelier::pipeline
