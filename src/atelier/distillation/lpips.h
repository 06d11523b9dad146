#pragma once

#include <filesystem>
#include <string>

#include "atelier/backends/torch/parameters.h"
#include "atelier/distillation/regression.h"

namespace atelier::distillation {

/// LPIPS (Zhang et al. 2018) with weights provided by the user: the perceptual distance of two
/// images. Squared differences of a classifier's channel-normalised features, weighted per channel,
/// averaged over positions and summed over five layers, as in version 0.1 of the authors' package.
class Lpips {
public:
    enum class Network { vgg, alex };

    /// `backbone`: torchvision's state dictionary of VGG-16 or AlexNet ("features.0.weight", ...).
    /// `linear`: the package's weights of the layers
    /// ("lin0.model.1.weight", ...); empty when `backbone` contains them. Files are torch.save's or
    /// safetensors. Throws core::Error naming the file and the tensor.
    Lpips(Network network, const std::filesystem::path& backbone,
          const std::filesystem::path& linear, at::Device device = at::kCPU);

    /// One distance per pair, [N], of images [N,C,H,W] in [-1,1] with 1 or 3 channels, not resized.
    /// Differentiable.
    Tensor distance(const Tensor& a, const Tensor& b) const;

    /// The mean distance of images resized to 224x224 (bilinear), as in DMD.
    Tensor operator()(const Tensor& generated, const Tensor& target) const;

private:
    std::vector<Tensor> layers(const Tensor& images) const;

    Network network_;
    backends::Parameters weights_;
};

/// "vgg" or "alex". Throws core::UsageError on anything else.
Lpips::Network lpips_network(const std::string& name);

}  // namespace atelier::distillation
