#pragma once

#include "atelier/report/report_sections.h"

namespace atelier::report {

/// Whether the run's models take prompts.
bool reads_prompts(const RunModels& run);

/// Samples for the first of `prompts`, one row each.
core::Image prompt_grid(inference::Pipeline& pipeline, const std::vector<std::string>& prompts);

/// Samples of the teacher and each ensemble for held-out captions, from the same noise.
void add_captioned_samples(report::Report& report, const RunModels& run);

/// The number of training captions routed to each student, and the caption nearest to each
/// centroid.
void add_prompt_cells(report::Report& report, const RunModels& run);

}  // namespace atelier::report
