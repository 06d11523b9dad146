#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "atelier/backends/torch/parameters.h"
#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/metrics/features.h"
#include "atelier/networks/clip_text.h"

namespace atelier::metrics {

/// Sizes of CLIP's image tower, a vision transformer (Dosovitskiy et al. 2021).
struct ClipVision {
    std::int64_t width, layers, heads, hidden, resolution, patch;
    double eps = 1e-5;
    bool quick_gelu = true;

    /// Reads "vision_config" of a CLIPModel's config.json. Throws core::Error naming file and key.
    static ClipVision of(const core::JsonObject& config);
};

/// CLIP (Radford et al. 2021) with user-supplied weights, for the CLIP score of images and
/// captions. It is used for evaluation only, so the image tower calls LibTorch functions directly;
/// the text tower is shared with the prompt encoder.
class Clip {
public:
    /// Reads a CLIPModel directory of transformers: config.json, model.safetensors (or shards) and
    /// the tokenizer's files. Throws core::Error naming the file and the tensor that is missing or
    /// has the wrong shape.
    explicit Clip(const std::filesystem::path& directory, at::Device device = at::kCPU);

    /// Images, uint8 [N,H,W,C] with 1 or 3 channels -> embeddings [N,D] of length 1.
    Tensor images(const Tensor& pixels) const;
    /// Captions -> embeddings [N,D] of length 1.
    Tensor texts(std::span<const std::string> captions) const;
    /// Preprocessed images [N,3,S,S] (clip_preprocess) -> embeddings [N,D] of length 1.
    Tensor embed(const Tensor& preprocessed) const;
    /// The same before they are scaled to length 1.
    Tensor project(const Tensor& preprocessed) const;

    const ClipVision& vision() const { return vision_; }
    std::int64_t width() const { return width_; }      // D
    const std::string& hash() const { return hash_; }  // backends::hash_of the weights

private:
    networks::ClipText text_;
    ClipVision vision_;
    std::int64_t width_;  // D
    backends::Parameters parameters_;
    conditions::ClipTokenizer tokenizer_;
    std::string hash_;
};

/// CLIP's image embeddings [N,D] as features, projected and not scaled to length 1.
class ClipFeatures : public FeatureSpace {
public:
    /// As Clip's constructor.
    explicit ClipFeatures(const std::filesystem::path& directory, at::Device device = at::kCPU)
        : clip_(directory, device) {}

    /// Takes images with 1 or 3 channels and any size, quantised to 8-bit levels.
    Features features(const Tensor& images) const override;
    std::int64_t width() const override { return clip_.width(); }
    const std::string& hash() const override { return clip_.hash(); }
    Kind kind() const override { return Kind::clip; }
    std::string resizing() const override;

private:
    Clip clip_;
};

/// Preprocesses images, uint8 [N,H,W,C] -> [N,3,S,S], like CLIPImageProcessor: resizes the shorter
/// side to `resolution` with Pillow's bicubic filter, crops the centre square and normalises each
/// channel by CLIP's mean and standard deviation.
Tensor clip_preprocess(const Tensor& pixels, std::int64_t resolution);

}  // namespace atelier::metrics
