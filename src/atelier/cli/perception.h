#pragma once

#include <string>

#include "atelier/distillation/regression.h"

namespace atelier::cli {

/// The perceptual regression loss on the layers of the classifier in `directory`.
distillation::RegressionLoss perceptual_loss(const std::string& directory, at::Device device);

}  // namespace atelier::cli
