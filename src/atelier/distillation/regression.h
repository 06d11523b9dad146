#pragma once

#include <functional>

#include "atelier/backends/torch/torch.h"

namespace atelier::distillation {

/// Distance between generated samples and the teacher's for the same noise, both [N,...] in model
/// space -> a scalar.
using RegressionLoss = std::function<Tensor(const Tensor& generated, const Tensor& target)>;

/// mean(sqrt(|a-b|^2 + c^2) - c) over samples, c = 0.00054 sqrt(D): pseudo-Huber with Song &
/// Dhariwal's (2024) constant.
Tensor pseudo_huber(const Tensor& generated, const Tensor& target);

/// A perceptual distance like LPIPS (Zhang et al. 2018): squared difference of
/// channel-normalised features, averaged over positions, summed over layers. `layers` maps images
/// to feature maps [N,C,h,w].
RegressionLoss perceptual(std::function<std::vector<Tensor>(const Tensor& images)> layers);

}  // namespace atelier::distillation
