#pragma once

#include <string>

#include "atelier/cli/run_config.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/models/model_directory.h"

namespace atelier::cli {

/// What the config says of stage "dm" or "adm", for `student`. Its random streams are the caller's to name.
distillation::MatchingSettings matching_settings(const RunConfig& config, const std::string& stage, const models::Model& student);

/// The config's loss on pairs for a stage, or nothing; "perceptual" by the features of `classifier`. Throws core::Error naming the weights that are missing or do not
/// fit.
distillation::RegressionLoss regression_loss(const RunConfig& config, const MatchingConfig& stage, const std::string& classifier, at::Device device);

}  // namespace atelier::cli
