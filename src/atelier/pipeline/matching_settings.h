#pragma once

#include <string>

#include "atelier/distillation/distribution_matching.h"
#include "atelier/models/model_directory.h"
#include "atelier/pipeline/run_config.h"

namespace atelier::pipeline {

/// The config's settings of DM or ADM, for `student`. The caller sets the name of the
/// random stream.
distillation::MatchingSettings matching_settings(const RunConfig& config, StageKind stage,
                                                 const models::Model& student);

/// The config's loss on pairs for a stage, or an empty function; "perceptual" uses the features of
/// `classifier`. Throws core::Error naming the weights that are missing or do not fit.
distillation::RegressionLoss regression_loss(const RunConfig& config, const MatchingConfig& stage,
                                             const std::string& classifier, at::Device device);

}  // namespace atelier::pipeline
