#pragma once

#include "atelier/cli/report_sections.h"

namespace atelier::cli {

/// Whether the run's models take prompts.
bool reads_prompts(const RunModels& run);

/// Samples of the teacher and each ensemble for held-out captions, from the same noise.
void add_captioned_samples(evaluation::Report& report, const RunModels& run);

/// The number of training captions routed to each student, and the caption nearest to each
/// centroid.
void add_prompt_cells(evaluation::Report& report, const RunModels& run);

}  // namespace atelier::cli
