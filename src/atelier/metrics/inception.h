#pragma once

#include <filesystem>

#include "atelier/backends/torch/parameters.h"
#include "atelier/metrics/features.h"
#include "atelier/models/state_dictionary.h"

namespace atelier::metrics {

/// How Inception's input is resized to 299x299.
enum class InceptionResize {
    tensorflow,  // TensorFlow 1: bilinear, no antialiasing; used by EDM and guided-diffusion
    clean        // clean-fid's "clean": Pillow, bicubic, antialiased, in float
};

/// The Inception-v3 of 2015 that FID is defined on (Szegedy et al. 2015; Heusel et al. 2017), with
/// user-supplied weights. It is used for evaluation only, so it calls LibTorch directly instead of
/// the op set, whose convolutions are square.
class Inception : public FeatureSpace {
public:
    static constexpr std::int64_t features_width = 2048, classes = 1008, resolution = 299;

    /// Reads a state dict with torchvision's names, as published by pytorch-fid and torch-fidelity
    /// (pt_inception-2015-12-05-*.pth, weights-inception-2015-12-05-*.pth), or the same as
    /// safetensors. Throws core::Error naming the file and the tensor that is missing or has the
    /// wrong shape.
    explicit Inception(const std::filesystem::path& weights, at::Device device = at::kCPU,
                       InceptionResize resize = InceptionResize::tensorflow);
    Inception(const models::NamedTensors& weights, const std::string& where,
              at::Device device = at::kCPU, InceptionResize resize = InceptionResize::tensorflow);

    /// Takes images with 1 or 3 channels and any size, quantised to 8-bit levels. Returns the final
    /// pooling features [N,2048] and the logits [N,1008] without bias, on which the Inception Score
    /// is defined. Levels 0..255 are resized to 299x299, then normalised as (x - 128) / 128.
    Features features(const Tensor& images) const override;

    std::int64_t width() const override { return features_width; }
    const std::string& hash() const override { return hash_; }
    Kind kind() const override { return Kind::inception; }
    std::string resizing() const override;

private:
    backends::Parameters layers_;  // convolutions with folded batch norm, by name; and "fc.weight"
    std::string hash_;
    InceptionResize resize_;
};

/// [N,C,H,W] -> [N,C,size,size] like TensorFlow 1's bilinear resize: an output pixel samples the
/// input at (row * H / size, column * W / size), interpolating between four neighbours.
Tensor resized_like_tensorflow(const Tensor& images, std::int64_t size);

/// Levels 0..255 [N,C,H,W] -> [N,C,size,size] like Pillow's BICUBIC on an image of mode "F"
/// (unrounded), clamped to 0..255.
Tensor resized_like_pillow(const Tensor& images, std::int64_t size);

}  // namespace atelier::metrics
