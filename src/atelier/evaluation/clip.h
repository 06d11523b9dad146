#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/networks/clip_text.h"
#include "atelier/ops/parameters.h"

namespace atelier::evaluation {

/// Sizes of CLIP's image tower, a vision transformer (Dosovitskiy et al. 2021).
struct ClipVision {
    std::int64_t width, layers, heads, hidden, resolution, patch;
    double eps = 1e-5;
    bool quick_gelu = true;

    /// Reads "vision_config" of a CLIPModel's config.json. Throws core::Error naming file and key.
    static ClipVision of(const core::JsonObject& config);
};

/// CLIP (Radford et al. 2021) with weights that the user brings: how well pictures fit their captions. It only ever measures, so its image tower is written in
/// LibTorch's own functions; the text tower is the one that prompts are read with.
class Clip {
public:
    /// Reads a directory as transformers writes a CLIPModel: config.json, model.safetensors (or shards) and the tokenizer's files. Throws core::Error naming the
    /// file, and the tensor that is missing, superfluous or of another shape.
    explicit Clip(const std::filesystem::path& directory, at::Device device = at::kCPU);

    /// Pictures, uint8 [N,H,W,C] with 1 or 3 channels -> embeddings [N,D] of length 1.
    Tensor images(const Tensor& pixels) const;
    /// Captions -> embeddings [N,D] of length 1.
    Tensor texts(std::span<const std::string> captions) const;
    /// What `images` sees, [N,3,S,S] normalised -> embeddings [N,D] of length 1.
    Tensor embedded(const Tensor& seen) const;

    const ClipVision& vision() const { return vision_; }
    const std::string& hash() const { return hash_; }  // ops::hash_of the weights

private:
    networks::ClipText text_;
    ClipVision vision_;
    std::int64_t width_;  // D
    ops::Parameters parameters_;
    conditions::ClipTokenizer tokenizer_;
    std::string hash_;
};

/// As CLIPImageProcessor prepares pictures, uint8 [N,H,W,C]: the shorter side to `resolution` by Pillow's bicubic rule, the middle square cut out, each channel
/// less its mean over its deviation: [N,3,S,S].
Tensor seen_by_clip(const Tensor& pixels, std::int64_t resolution);

}  // namespace atelier::evaluation
