#pragma once

#include <string>

#include "atelier/cli/sample_text.h"

namespace atelier::cli {

/// `sample` for text-conditional models and ensembles in pixel space
/// (inference/prompted_generator.h).
void sample_prompted(const TextRequest& request, const TextOptions& options,
                     const inference::Engine& engine);

}  // namespace atelier::cli
