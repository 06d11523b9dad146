#include "atelier/data/sample_spec.h"

#include <algorithm>
#include <cstring>

#include "atelier/core/error.h"

namespace atelier::data {

namespace {

const char* name_of(SampleSpec::Kind kind) {
    switch (kind) {
        case SampleSpec::Kind::points:
            return "points";
        case SampleSpec::Kind::latent:
            return "latent";
        case SampleSpec::Kind::image:
            break;
    }
    return "image";
}

SampleSpec::Kind read_kind(const core::JsonObject& json) {
    const std::string name = json.text("kind");
    for (const auto kind :
         {SampleSpec::Kind::image, SampleSpec::Kind::points, SampleSpec::Kind::latent}) {
        if (name == name_of(kind)) return kind;
    }
    core::fail("{}: data.kind is \"{}\"; known are image, points and latent", json.where(), name);
}

}  // namespace

nlohmann::json to_json(const SampleSpec& spec) {
    nlohmann::json json{{"kind", name_of(spec.kind)}, {"shape", spec.shape}};
    if (spec.kind == SampleSpec::Kind::points) {
        json["offset"] = spec.offset;
        json["scale"] = spec.scale;
    }
    if (!spec.class_names.empty()) json["class_names"] = spec.class_names;
    return json;
}

SampleSpec sample_spec_from_json(const core::JsonObject& json) {
    SampleSpec spec;
    spec.kind = read_kind(json);
    spec.shape = json.integers("shape", 1, 1 << 20);
    if (spec.kind == SampleSpec::Kind::points) {
        spec.offset = json.numbers("offset");
        spec.scale = json.number("scale", 1e-30, 1e30);
        if (spec.shape.size() != 1 ||
            spec.offset.size() != static_cast<std::size_t>(spec.shape[0])) {
            core::fail("{}: data.offset needs one number for each of the points' dimensions",
                       json.where());
        }
    } else if (spec.shape.size() != 3) {
        core::fail("{}: data.shape of images and latents is [channels, height, width]",
                   json.where());
    }
    if (json.has("class_names")) spec.class_names = json.texts("class_names");
    return spec;
}

namespace {

/// Pixels [N,H,W,C] of images [N,C,H,W] in [-1,1], in one pass: for a small image, six LibTorch
/// operations take longer than encoding its PNG.
Tensor pixels_of(const Tensor& images) {
    const Tensor from = images.contiguous();
    const std::int64_t count = from.size(0), channels = from.size(1),
                       positions = from.size(2) * from.size(3);
    Tensor pixels = at::empty({count, from.size(2), from.size(3), channels}, at::kByte);
    const float* values = from.const_data_ptr<float>();
    auto* to = pixels.mutable_data_ptr<std::uint8_t>();
    for (std::int64_t plane = 0; plane < count * channels; ++plane) {
        const float* row = values + plane * positions;
        std::uint8_t* first = to + plane / channels * channels * positions + plane % channels;
        for (std::int64_t i = 0; i < positions; ++i) {
            const float value = row[i] * 127.5F + 128.0F;
            first[i * channels] = static_cast<std::uint8_t>(value > 0 ? std::min(value, 255.0F)
                                                                      : 0.0F);  // NaN becomes 0
        }
    }
    return pixels;
}

}  // namespace

Tensor to_user_space(const SampleSpec& spec, const Tensor& samples) {
    const Tensor on_cpu = samples.detach().to(at::kCPU, at::kFloat);
    if (spec.kind == SampleSpec::Kind::points)
        return on_cpu * spec.scale + at::tensor(spec.offset, at::kFloat);
    if (spec.kind == SampleSpec::Kind::latent) return on_cpu.contiguous();
    return pixels_of(on_cpu);
}

Tensor to_model_space(const SampleSpec& spec, const Tensor& user) {
    if (spec.kind == SampleSpec::Kind::points)
        return (user.to(at::kFloat) - at::tensor(spec.offset, at::kFloat)) / spec.scale;
    return (user.to(at::kFloat) / 127.5 - 1).permute({0, 3, 1, 2}).contiguous();
}

core::Image image_of(const Tensor& pixels) {
    const Tensor source = pixels.contiguous();
    core::Image image{static_cast<int>(source.size(0)),
                      static_cast<int>(source.size(1)),
                      static_cast<int>(source.size(2)),
                      {}};
    image.pixels.resize(static_cast<std::size_t>(source.numel()));
    std::memcpy(image.pixels.data(), source.const_data_ptr<std::uint8_t>(), image.pixels.size());
    return image;
}

std::vector<core::Image> images_of(const Tensor& pixels) {
    std::vector<core::Image> images;
    for (std::int64_t i = 0; i < pixels.size(0); ++i) images.push_back(image_of(pixels[i]));
    return images;
}

}  // namespace atelier::data
