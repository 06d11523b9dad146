#pragma once

#include <filesystem>

#include "atelier/backends/torch/parameters.h"
#include "atelier/metrics/features.h"
#include "atelier/models/state_dictionary.h"

namespace atelier::metrics {

/// DINOv2's vision transformer (Oquab et al. 2024) with user-supplied weights. It is used for
/// evaluation only, so it calls LibTorch directly. All sizes follow from the tensors' shapes; heads
/// have 64 channels, as in all published sizes (S, B and L; giant's gated MLP is not read).
class Dinov2 : public FeatureSpace {
public:
    static constexpr std::int64_t resolution = 224, head_width = 64;

    /// Reads the tensors of transformers' Dinov2Model or of the authors' files, from safetensors or
    /// a state dictionary (.pth, .bin). Throws core::Error naming the file and the tensor that is
    /// missing or has the wrong shape, or weights with register tokens.
    explicit Dinov2(const std::filesystem::path& weights, at::Device device = at::kCPU);
    Dinov2(const models::NamedTensors& named, const std::string& where,
           at::Device device = at::kCPU);

    /// Takes images with 1 or 3 channels and any size, quantised to 8-bit levels. Returns the class
    /// token after the last norm [N,width], of images resized to 224x224 (dinov2_preprocess).
    Features features(const Tensor& images) const override;
    /// Preprocessed images [N,3,H,W], sides multiples of the patch's -> class tokens [N,width].
    Tensor embed(const Tensor& preprocessed) const;

    std::int64_t width() const override { return width_; }
    const std::string& hash() const override { return hash_; }
    Kind kind() const override { return Kind::dinov2; }
    std::string resizing() const override;

private:
    std::int64_t width_ = 0, layers_ = 0, patch_ = 0, grid_ = 0;
    backends::Parameters parameters_;
    std::string hash_;
};

/// Levels 0..255 [N,3,H,W] -> [N,3,224,224]: bicubic with antialiasing in float, neither rounded
/// nor clamped, as in EDM2's evaluation (Karras et al. 2024); then divided by 255 and normalised by
/// ImageNet's mean and standard deviation.
Tensor dinov2_preprocess(const Tensor& levels);

}  // namespace atelier::metrics
