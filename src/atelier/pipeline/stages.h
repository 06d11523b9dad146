#pragma once

#include <functional>

#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

/// What a stage trains, as far as its cost depends on it.
struct TrainingWork {
    std::int64_t steps = 0, batch = 0;
    std::int64_t micro_batch = 0;   // samples computed together
    std::int64_t fake_updates = 0;  // per step; 0 where there is no fake score
};

/// One stage of a run.
struct Stage {
    StageKind kind;
    std::optional<std::int64_t> student;   // whose stage it is; none: of the run
    std::vector<std::string> keys;         // config keys that its result depends on
    std::optional<TrainingWork> work;      // if it trains; `planning` computes its cost from this
    std::function<void(RunContext&)> run;  // makes it unless it is finished

    std::string name() const { return name_of(kind); }
    /// A folder or file under the run's directory.
    std::string path() const { return stage_path(kind, student); }
};

/// The stages that a config asks for, in order. Students of another size than their teacher have
/// TSM, which turns out to be unnecessary where the sizes given are the teacher's.
/// Students' steps are those of `shares` (RunContext::shares); without, of equal budgets.
std::vector<Stage> stages(const RunConfig& config, std::span<const double> shares = {});

/// The training stages of every student, in order.
std::vector<StageKind> student_stages(const RunConfig& config);

/// The last of them, whose result is the student. Throws core::UsageError if there is none.
StageKind last_student_stage(const RunConfig& config);

/// Does every stage that is missing; students one at a time or in parallel, as configured.
void run_stages(RunContext& context);

/// Does the stages of a kind.
void run_stages_of(RunContext& context, StageKind kind);

/// Does the stages of one student, or only those of a kind.
void run_student(RunContext& context, std::int64_t student, std::optional<StageKind> only = {});

}  // namespace atelier::pipeline
