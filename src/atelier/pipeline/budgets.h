#pragma once

#include <optional>
#include <vector>

#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

/// The teacher's denoising loss on up to 256 samples of each class.
std::vector<double> class_losses(RunContext& context);

/// Each student's budget as RunConfig::of_student reads it, for students.budget other than equal:
/// by the prior mass of their cells, or by that times the teacher's loss. The losses are measured
/// once and kept in the run's difficulty.json.
std::vector<double> measured_shares(RunContext& context);

/// The same as far as it is known without a teacher: for equal budgets (none), or where the
/// partition of classes and, if they count, the losses are there or do not depend on the teacher.
std::optional<std::vector<double>> known_shares(const RunConfig& config, const data::Dataset& raw);

}  // namespace atelier::pipeline
