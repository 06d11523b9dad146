#pragma once

#include <string>
#include <vector>

#include "atelier/core/image_file.h"
#include "atelier/core/json_file.h"
#include "atelier/ops/torch.h"

namespace atelier::models {

/// What a model's samples are, and how model space and the user's space are tied. Written into config.json as "data".
struct DataForm {
    enum class Kind { image, points, latent };  // latent: of an autoencoder that lies beside the model, scaled as its U-Net knows them
    Kind kind = Kind::image;
    std::vector<std::int64_t> shape;       // [C,H,W] or [D]
    std::vector<double> offset;            // points: user = offset + scale * model, a number a dimension
    double scale = 1.0;                    // points
    std::vector<std::string> class_names;  // empty, or one a class

    bool operator==(const DataForm&) const = default;
};

nlohmann::json to_json(const DataForm& form);
DataForm data_form_from_json(const core::JsonObject& json);

/// Model space to the user's: images to uint8 [N,H,W,C] by clamp(x*127.5 + 128, 0, 255), truncated (as EDM quantises);
/// points to float32 [N,D]; latents stay as they are, float32 [N,C,H,W] (inference/autoencoder.h makes images of them).
Tensor to_user_space(const DataForm& form, const Tensor& samples);

/// uint8 [N,H,W,C] back to float32 [N,C,H,W] in [-1,1] (x/127.5 - 1), points to model space.
Tensor to_model_space(const DataForm& form, const Tensor& user);

/// One picture of uint8 [H,W,C].
core::Image image_of(const Tensor& pixels);
/// Those of uint8 [N,H,W,C].
std::vector<core::Image> images_of(const Tensor& pixels);

}  // namespace atelier::models
