#pragma once

#include "atelier/planning/run_plan.h"

namespace atelier::planning {

/// How several GPUs would train one network together.
struct RankSettings {
    std::int64_t ranks = 1;
    double link = 300e9;  // bytes a second that a ring of GPUs passes on
};

/// A step of a stage, divided among ranks. Times are NaN where the step's is not known.
struct RankPlan {
    std::int64_t micro_batches = 0, of_busiest = 0;  // of an update; of the rank that has most
    std::int64_t idle = 0;                           // ranks without any
    std::int64_t even_micro_batch = 0;  // samples, with which all ranks would have as many
    double sum_bytes = 0;               // of each of `sums` gradients
    std::int64_t sums = 0;              // per step
    double compute_seconds = 0, sum_seconds = 0;
    double exposed_seconds = 0;  // of the sums, that do not fit beside the last micro-batch's half
    double step_seconds() const { return compute_seconds + exposed_seconds; }
    double step_seconds_without_overlap() const { return compute_seconds + sum_seconds; }
};

/// Ranks share whole micro-batches; the sum of a gradient of so many `parameters` takes 2 (R - 1) /
/// R of its bytes over the link (Patarasuk and Yuan 2009), 8 for each number, as exact sums have. A
/// micro-batch takes as long as on one GPU. `step_seconds`: of one GPU.
RankPlan plan_ranks(const PlannedStage& stage, std::int64_t parameters, double step_seconds,
                    const RankSettings& settings);

}  // namespace atelier::planning
