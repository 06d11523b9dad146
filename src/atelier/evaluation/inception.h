#pragma once

#include <filesystem>

#include "atelier/evaluation/features.h"
#include "atelier/models/state_dictionary.h"
#include "atelier/ops/parameters.h"

namespace atelier::evaluation {

/// What Inception's input is resized to 299x299 with.
enum class InceptionResize {
    tensorflow,  // bilinear without antialiasing, as TensorFlow 1: EDM's and guided-diffusion's
                 // figures
    clean        // bicubic with antialiasing, in float, as Pillow: clean-fid's "clean"
};

/// The Inception-v3 of 2015 that FID is defined on (Szegedy et al. 2015; Heusel et al. 2017), with weights that the user brings. It only ever measures, so
/// it is written in LibTorch's own functions instead of the vocabulary of ops, whose convolutions are square.
class Inception : public FeatureSpace {
public:
    static constexpr std::int64_t features_width = 2048, classes = 1008, resolution = 299;

    /// Reads a state dictionary with torchvision's names, as pytorch-fid and torch-fidelity publish it (pt_inception-2015-12-05-*.pth,
    /// weights-inception-2015-12-05-*.pth), or the same as safetensors. Throws core::Error naming the file and the tensor that is missing or of another shape.
    explicit Inception(const std::filesystem::path& weights, at::Device device = at::kCPU,
                       InceptionResize resize = InceptionResize::tensorflow);
    Inception(const models::NamedTensors& weights, const std::string& where,
              at::Device device = at::kCPU, InceptionResize resize = InceptionResize::tensorflow);

    /// Of images with 1 or 3 channels and any size, taken as 8-bit levels: features of the last pooling [N,2048], and logits [N,1008] without bias, which the
    /// Inception Score is defined on. Levels 0..255 are resized to 299x299, then (x - 128) / 128.
    Features features(const Tensor& images) const override;

    std::int64_t width() const override { return features_width; }
    const std::string& hash() const override { return hash_; }
    Kind kind() const override { return Kind::inception; }
    std::string resizing() const override;

private:
    ops::Parameters layers_;  // convolutions with their normalisation folded in, by name; and "fc.weight"
    std::string hash_;
    InceptionResize resize_;
};

/// [N,C,H,W] -> [N,C,size,size] by TensorFlow 1's bilinear rule: a pixel reads at (row * H / size, column * W / size), between four neighbours.
Tensor resized_like_tensorflow(const Tensor& images, std::int64_t size);

/// Levels 0..255 [N,C,H,W] -> [N,C,size,size] as Pillow's BICUBIC resizes an image of mode "F",
/// which keeps its fractions; cut to 0..255.
Tensor resized_like_pillow(const Tensor& images, std::int64_t size);

}  // namespace atelier::evaluation
