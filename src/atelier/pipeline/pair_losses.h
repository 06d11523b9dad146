#pragma once

#include <string>

#include "atelier/distillation/regression.h"
#include "atelier/pipeline/run_config.h"

namespace atelier::pipeline {

/// The perceptual regression loss on the layers of the classifier in `directory`. Throws
/// core::Error where that cannot be read.
distillation::RegressionLoss perceptual_loss(const std::string& directory, at::Device device);

/// LPIPS with the config's weights. Throws core::Error naming the file that is missing or does not
/// fit.
distillation::RegressionLoss lpips_loss(const LpipsConfig& config, at::Device device);

/// The loss on pairs of a stage of the run, or an empty function; "perceptual" uses the features of
/// `classifier`. Throws core::Error naming the weights that are missing or do not fit.
distillation::RegressionLoss pair_loss(const RunConfig& config, StageKind stage,
                                       const std::string& classifier, at::Device device);

}  // namespace atelier::pipeline
