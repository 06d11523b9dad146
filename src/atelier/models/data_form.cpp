#include "atelier/models/data_form.h"

#include <algorithm>
#include <cstring>

#include "atelier/core/error.h"

namespace atelier::models {

namespace {

const char* name_of(DataForm::Kind kind) {
    switch (kind) {
        case DataForm::Kind::points: return "points";
        case DataForm::Kind::latent: return "latent";
        case DataForm::Kind::image: break;
    }
    return "image";
}

DataForm::Kind read_kind(const core::JsonObject& json) {
    const std::string word = json.text("kind");
    for (const auto kind : {DataForm::Kind::image, DataForm::Kind::points, DataForm::Kind::latent}) {
        if (word == name_of(kind)) return kind;
    }
    core::fail("{}: data.kind is \"{}\"; known are image, points and latent", json.where(), word);
}

}  // namespace

nlohmann::json to_json(const DataForm& form) {
    nlohmann::json json{{"kind", name_of(form.kind)}, {"shape", form.shape}};
    if (form.kind == DataForm::Kind::points) {
        json["offset"] = form.offset;
        json["scale"] = form.scale;
    }
    if (!form.class_names.empty()) json["class_names"] = form.class_names;
    return json;
}

DataForm data_form_from_json(const core::JsonObject& json) {
    DataForm form;
    form.kind = read_kind(json);
    form.shape = json.integers("shape", 1, 1 << 20);
    if (form.kind == DataForm::Kind::points) {
        form.offset = json.numbers("offset");
        form.scale = json.number("scale", 1e-30, 1e30);
        if (form.shape.size() != 1 || form.offset.size() != static_cast<std::size_t>(form.shape[0])) {
            core::fail("{}: data.offset needs one number for each of the points' dimensions", json.where());
        }
    } else if (form.shape.size() != 3) {
        core::fail("{}: data.shape of images and latents is [channels, height, width]", json.where());
    }
    if (json.has("class_names")) form.class_names = json.texts("class_names");
    return form;
}

namespace {

/// Pixels [N,H,W,C] from numbers [N,C,H,W], -1 becoming 0 and 1 becoming 255: in one pass, since a small picture's six operations of LibTorch took longer than its PNG.
Tensor pixels_of(const Tensor& images) {
    const Tensor from = images.contiguous();
    const std::int64_t count = from.size(0), channels = from.size(1), positions = from.size(2) * from.size(3);
    Tensor pixels = at::empty({count, from.size(2), from.size(3), channels}, at::kByte);
    const float* numbers = from.const_data_ptr<float>();
    auto* to = pixels.mutable_data_ptr<std::uint8_t>();
    for (std::int64_t plane = 0; plane < count * channels; ++plane) {
        const float* row = numbers + plane * positions;
        std::uint8_t* first = to + plane / channels * channels * positions + plane % channels;
        for (std::int64_t i = 0; i < positions; ++i) {
            const float wanted = row[i] * 127.5F + 128.0F;
            first[i * channels] = static_cast<std::uint8_t>(wanted > 0 ? std::min(wanted, 255.0F) : 0.0F);  // what is no number becomes 0
        }
    }
    return pixels;
}

}  // namespace

Tensor to_user_space(const DataForm& form, const Tensor& samples) {
    const Tensor here = samples.detach().to(at::kCPU, at::kFloat);
    if (form.kind == DataForm::Kind::points) return here * form.scale + at::tensor(form.offset, at::kFloat);
    if (form.kind == DataForm::Kind::latent) return here.contiguous();
    return pixels_of(here);
}

Tensor to_model_space(const DataForm& form, const Tensor& user) {
    if (form.kind == DataForm::Kind::points) return (user.to(at::kFloat) - at::tensor(form.offset, at::kFloat)) / form.scale;
    return (user.to(at::kFloat) / 127.5 - 1).permute({0, 3, 1, 2}).contiguous();
}

core::Image image_of(const Tensor& pixels) {
    const Tensor here = pixels.contiguous();
    core::Image image{static_cast<int>(here.size(0)), static_cast<int>(here.size(1)), static_cast<int>(here.size(2)), {}};
    image.pixels.resize(static_cast<std::size_t>(here.numel()));
    std::memcpy(image.pixels.data(), here.const_data_ptr<std::uint8_t>(), image.pixels.size());
    return image;
}

std::vector<core::Image> images_of(const Tensor& pixels) {
    std::vector<core::Image> images;
    for (std::int64_t i = 0; i < pixels.size(0); ++i) images.push_back(image_of(pixels[i]));
    return images;
}

}  // namespace atelier::models
