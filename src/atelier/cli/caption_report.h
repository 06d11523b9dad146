#pragma once

#include "atelier/cli/report_sections.h"

namespace atelier::cli {

/// Whether the shelf's models read prompts.
bool reads_prompts(const Shelf& shelf);

/// Held-out captions, and what the teacher and each ensemble draw for them from the same noise.
void add_captioned_samples(evaluation::Report& report, const Shelf& shelf);

/// How the captions of the training grammar are shared among students, and the one nearest to each centre.
void add_prompt_cells(evaluation::Report& report, const Shelf& shelf);

}  // namespace atelier::cli
