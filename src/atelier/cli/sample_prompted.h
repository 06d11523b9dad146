#pragma once

#include <string>

#include "atelier/cli/sample_text.h"

namespace atelier::cli {

/// `sample` for models and ensembles that read prompts and draw pixels (inference/prompted_generator.h).
void sample_prompted(const TextRequest& request, const TextOptions& options, const inference::Engine& engine);

}  // namespace atelier::cli
