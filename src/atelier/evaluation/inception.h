#pragma once

#include <filesystem>

#include "atelier/evaluation/features.h"
#include "atelier/models/state_dictionary.h"
#include "atelier/ops/parameters.h"

namespace atelier::evaluation {

/// The Inception-v3 of 2015 that FID is defined on (Szegedy et al. 2015; Heusel et al. 2017), with weights that the user brings. It only ever measures, so
/// it is written in LibTorch's own functions instead of the vocabulary of ops, whose convolutions are square.
class Inception : public FeatureSpace {
public:
    static constexpr std::int64_t features_width = 2048, classes = 1008, resolution = 299;

    /// Reads a state dictionary with torchvision's names, as pytorch-fid and torch-fidelity publish it (pt_inception-2015-12-05-*.pth,
    /// weights-inception-2015-12-05-*.pth), or the same as safetensors. Throws core::Error naming the file and the tensor that is missing or of another shape.
    explicit Inception(const std::filesystem::path& weights, at::Device device = at::kCPU);
    Inception(const models::NamedTensors& weights, const std::string& where, at::Device device = at::kCPU);

    /// Of images with 1 or 3 channels and any size, taken as 8-bit levels: features of the last pooling [N,2048], and logits [N,1008] without bias, which the
    /// Inception Score is defined on. Levels 0..255 are resized to 299x299 as TensorFlow 1 does (bilinear, no antialiasing, corners not aligned), then (x - 128) / 128.
    Features features(const Tensor& images) const override;

    std::int64_t width() const override { return features_width; }
    const std::string& hash() const override { return hash_; }
    bool is_inception() const override { return true; }

private:
    ops::Parameters layers_;  // convolutions with their normalisation folded in, by name; and "fc.weight"
    std::string hash_;
};

/// [N,C,H,W] -> [N,C,size,size] by TensorFlow 1's bilinear rule: a pixel reads at (row * H / size, column * W / size), between four neighbours.
Tensor resized_like_tensorflow(const Tensor& images, std::int64_t size);

}  // namespace atelier::evaluation
