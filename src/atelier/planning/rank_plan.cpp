#include "atelier/planning/rank_plan.h"

#include <algorithm>

namespace atelier::planning {

namespace {

constexpr double bytes_per_number = 8;  // of a gradient in an exact sum
constexpr double hidden_share = 0.5;    // of the last micro-batch, beside which sums run

std::int64_t divided(std::int64_t count, std::int64_t by) { return (count + by - 1) / by; }

}  // namespace

RankPlan plan_ranks(const PlannedStage& stage, std::int64_t parameters, double step_seconds,
                    const RankSettings& settings) {
    RankPlan plan;
    const std::int64_t ranks = settings.ranks;
    plan.micro_batches = divided(stage.batch, stage.micro_batch);
    plan.of_busiest = divided(plan.micro_batches, ranks);
    plan.idle = std::max<std::int64_t>(0, ranks - plan.micro_batches);
    const std::int64_t samples = divided(stage.batch, ranks);
    plan.even_micro_batch = divided(samples, divided(samples, stage.micro_batch));
    plan.sums = 1 + stage.fake_updates;
    plan.sum_bytes = static_cast<double>(parameters) * bytes_per_number;
    const double n = static_cast<double>(ranks);
    plan.sum_seconds =
        static_cast<double>(plan.sums) * 2 * (n - 1) / n * plan.sum_bytes / settings.link;
    const double each = step_seconds / static_cast<double>(plan.micro_batches);
    plan.compute_seconds = each * static_cast<double>(plan.of_busiest);
    plan.exposed_seconds = std::max(0.0, plan.sum_seconds - hidden_share * each);
    return plan;
}

}  // namespace atelier::planning
