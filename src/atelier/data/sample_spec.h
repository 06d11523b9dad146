#pragma once

#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/image_file.h"
#include "atelier/core/json_file.h"

namespace atelier::data {

/// The kind and shape of a model's samples, and the mapping between model space and user space.
/// Written to config.json as "data".
struct SampleSpec {
    enum class Kind {
        image,
        points,
        latent
    };  // latent: of the autoencoder beside the model, scaled as its U-Net expects them
    Kind kind = Kind::image;
    std::vector<std::int64_t> shape;  // [C,H,W] or [D]
    std::vector<double> offset;  // points: user = offset + scale * model, one value per dimension
    double scale = 1.0;          // points
    std::vector<std::string> class_names;  // empty, or one per class

    bool operator==(const SampleSpec&) const = default;
};

nlohmann::json to_json(const SampleSpec& spec);
SampleSpec sample_spec_from_json(const core::JsonObject& json);

/// Model space to user space: images to uint8 [N,H,W,C] by clamp(x*127.5 + 128, 0, 255), truncated
/// (as EDM quantises); points to float32 [N,D]; latents are unchanged, float32 [N,C,H,W]
/// (inference/autoencoder.h decodes them).
Tensor to_user_space(const SampleSpec& spec, const Tensor& samples);

/// uint8 [N,H,W,C] back to float32 [N,C,H,W] in [-1,1] (x/127.5 - 1), points to model space.
Tensor to_model_space(const SampleSpec& spec, const Tensor& user);

/// The image with pixels uint8 [H,W,C].
core::Image image_of(const Tensor& pixels);
/// The images with pixels uint8 [N,H,W,C].
std::vector<core::Image> images_of(const Tensor& pixels);

}  // namespace atelier::data
