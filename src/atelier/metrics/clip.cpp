#include "atelier/metrics/clip.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/diffusion/encoded_text.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t images_per_batch = 50, captions_per_batch = 64;

/// The tensors of the image tower and the two projections, as transformers names them.
std::vector<graph::ParameterSpec> vision_specs(const ClipVision& vision, std::int64_t text_width,
                                               std::int64_t width) {
    const std::int64_t w = vision.width, grid = vision.resolution / vision.patch;
    const std::string top = "vision_model.";
    std::vector<graph::ParameterSpec> specs{
        {top + "embeddings.class_embedding", {w}, {}, 1},
        {top + "embeddings.patch_embedding.weight", {w, 3, vision.patch, vision.patch}, {}, 1},
        {top + "embeddings.position_embedding.weight", {grid * grid + 1, w}, {}, 1},
        {"visual_projection.weight", {width, w}, {}, 1},
        {"text_projection.weight", {width, text_width}, {}, 1}};
    const auto add = [&](const std::string& name, core::Shape shape) {
        specs.push_back({top + name + ".bias", {shape[0]}, {}, 1});
        specs.push_back({top + name + ".weight", std::move(shape), {}, 1});
    };
    for (const char* norm : {"pre_layrnorm", "post_layernorm"})
        add(norm, {w});  // the first name is transformers' own
    for (std::int64_t i = 0; i < vision.layers; ++i) {
        const std::string layer = "encoder.layers." + std::to_string(i) + ".";
        for (const char* norm : {"layer_norm1", "layer_norm2"}) add(layer + norm, {w});
        for (const char* projection : {"q_proj", "k_proj", "v_proj", "out_proj"})
            add(layer + "self_attn." + projection, {w, w});
        add(layer + "mlp.fc1", {vision.hidden, w});
        add(layer + "mlp.fc2", {w, vision.hidden});
    }
    return specs;
}

/// The image tower's forward pass on tokens [N,T,width].
struct VisionTower {
    const ClipVision& vision;
    const backends::Parameters& parameters;

    const Tensor& at(const std::string& name) const {
        return parameters.at("vision_model." + name);
    }
    Tensor norm(const Tensor& x, const std::string& name) const {
        return at::layer_norm(x, {vision.width}, at(name + ".weight"), at(name + ".bias"),
                              vision.eps);
    }
    Tensor linear(const Tensor& x, const std::string& name) const {
        return at::linear(x, at(name + ".weight"), at(name + ".bias"));
    }

    Tensor attention(const Tensor& x, const std::string& layer) const {
        const auto heads = [&](const char* projection) {
            return linear(x, layer + projection).unflatten(2, {vision.heads, -1}).transpose(1, 2);
        };
        const Tensor mixed =
            at::scaled_dot_product_attention(heads("q_proj"), heads("k_proj"), heads("v_proj"));
        return linear(mixed.transpose(1, 2).flatten(2), layer + "out_proj");
    }

    /// [N,3,S,S] -> [N,width], the final state of the class token.
    Tensor run(const Tensor& images) const {
        const Tensor patches =
            at::conv2d(images, at("embeddings.patch_embedding.weight"), {}, vision.patch)
                .flatten(2)
                .transpose(1, 2);
        const Tensor first =
            at("embeddings.class_embedding").expand({images.size(0), 1, vision.width});
        Tensor x = norm(at::cat({first, patches}, 1) + at("embeddings.position_embedding.weight"),
                        "pre_layrnorm");
        for (std::int64_t i = 0; i < vision.layers; ++i) {
            const std::string layer = "encoder.layers." + std::to_string(i) + ".";
            x = x + attention(norm(x, layer + "layer_norm1"), layer + "self_attn.");
            const Tensor inner = linear(norm(x, layer + "layer_norm2"), layer + "mlp.fc1");
            x = x + linear(vision.quick_gelu ? inner * at::sigmoid(inner * 1.702) : at::gelu(inner),
                           layer + "mlp.fc2");
        }
        return norm(x.select(1, 0), "post_layernorm");
    }
};

Tensor to_unit_length(const Tensor& x) {
    return x / x.norm(2, {1}, true).clamp_min(1e-12);
}  // zero rows stay zero

/// "text_config" has no model type in some files.
networks::ClipText text_of(const core::JsonObject& config) {
    return networks::ClipText::of(config.object("text_config"));
}

/// Reads the tensors named by `specs`; buffers (position_ids) and the temperature are ignored.
backends::Parameters read_needed(const models::DiffusersWeights& weights,
                                 const std::vector<graph::ParameterSpec>& specs,
                                 const std::string& where) {
    backends::Parameters all = weights.read(), needed;
    for (const graph::ParameterSpec& spec : specs) {
        if (!all.contains(spec.name))
            core::fail(
                "{}: \"{}\" is missing; the weights are not those of the CLIPModel that "
                "config.json describes",
                where, spec.name);
        const Tensor& tensor = all.at(spec.name);
        if (tensor.sizes().vec() != spec.shape) {
            core::fail("{}: \"{}\" is {}, and config.json says {}", where, spec.name,
                       core::to_string(tensor.sizes().vec()), core::to_string(spec.shape));
        }
        needed.set(spec.name, tensor);
    }
    return needed;
}

}  // namespace

ClipVision ClipVision::of(const core::JsonObject& config) {
    const std::string activation = config.text_or("hidden_act", "quick_gelu");
    if (activation != "quick_gelu" && activation != "gelu") {
        core::fail("{}: \"hidden_act\" is \"{}\"; supported are quick_gelu and gelu",
                   config.where(), activation.substr(0, 100));
    }
    const ClipVision vision{.width = config.integer_or("hidden_size", 768, 1, 16384),
                            .layers = config.integer_or("num_hidden_layers", 12, 1, 256),
                            .heads = config.integer_or("num_attention_heads", 12, 1, 1024),
                            .hidden = config.integer_or("intermediate_size", 3072, 1, 65536),
                            .resolution = config.integer_or("image_size", 224, 1, 4096),
                            .patch = config.integer_or("patch_size", 32, 1, 4096),
                            .eps = config.number_or("layer_norm_eps", 1e-5, 0, 1),
                            .quick_gelu = activation == "quick_gelu"};
    if (vision.width % vision.heads != 0)
        core::fail("{}: \"hidden_size\" must be a multiple of \"num_attention_heads\"",
                   config.where());
    if (vision.resolution < vision.patch)
        core::fail("{}: \"patch_size\" is more than \"image_size\"", config.where());
    return vision;
}

Clip::Clip(const std::filesystem::path& directory, at::Device device) : tokenizer_(directory) {
    const std::filesystem::path file = directory / "config.json";
    const nlohmann::json json = core::read_json(file);
    const core::JsonObject config(json, file.string());
    if (config.text_or("model_type", "") != "clip")
        core::fail(
            "{}: \"model_type\" must be clip: a CLIPModel, with both towers and their projections",
            file.string());
    text_ = text_of(config);
    vision_ = ClipVision::of(config.object("vision_config"));
    width_ = config.integer_or("projection_dim", 512, 1, 65536);
    std::vector<graph::ParameterSpec> specs = models::parameters_of(text_);
    for (graph::ParameterSpec& spec : vision_specs(vision_, text_.width, width_))
        specs.push_back(std::move(spec));
    parameters_ = read_needed(models::DiffusersWeights(directory), specs, directory.string());
    hash_ = backends::hash_of(parameters_);
    parameters_ = parameters_.to(device);
}

Tensor Clip::project(const Tensor& preprocessed) const {
    const at::NoGradGuard no_gradients;
    const Tensor& projection = parameters_.at("visual_projection.weight");
    const Tensor tower =
        VisionTower{vision_, parameters_}.run(preprocessed.to(projection.device(), at::kFloat));
    return at::linear(tower, projection).to(at::kCPU);
}

Tensor Clip::embed(const Tensor& preprocessed) const {
    return to_unit_length(project(preprocessed));
}

Tensor Clip::images(const Tensor& pixels) const {
    std::vector<Tensor> all;
    for (const Tensor& some : pixels.split(images_per_batch))
        all.push_back(embed(clip_preprocess(some, vision_.resolution)));
    return at::cat(all);
}

Tensor Clip::texts(std::span<const std::string> captions) const {
    const at::NoGradGuard no_gradients;
    std::vector<Tensor> all;
    for (std::size_t first = 0; first < captions.size(); first += captions_per_batch) {
        const Tensor ids = models::token_ids(
            tokenizer_, captions.subspan(first, std::min<std::size_t>(captions_per_batch,
                                                                      captions.size() - first)));
        const Tensor read = diffusion::encode_text(text_, parameters_, ids)
                                .embeddings;  // of length 1; the scale cancels in to_unit_length
        all.push_back(to_unit_length(at::linear(read, parameters_.at("text_projection.weight")))
                          .to(at::kCPU));
    }
    return at::cat(all);
}

Features ClipFeatures::features(const Tensor& images) const {
    if (images.dim() != 4 || (images.size(1) != 1 && images.size(1) != 3)) {
        core::fail("CLIP: it reads images with 1 or 3 channels, these samples are {}",
                   core::to_string(images.sizes().vec()));
    }
    std::vector<Tensor> all{at::zeros({0, width()})};
    for (std::int64_t first = 0; first < images.size(0); first += images_per_batch) {
        const Tensor batch =
            images.narrow(0, first, std::min(images_per_batch, images.size(0) - first));
        const Tensor pixels =
            ((batch.to(at::kCPU, at::kFloat) + 1) * 127.5).round().clamp(0, 255).to(at::kByte);
        all.push_back(clip_.project(
            clip_preprocess(pixels.permute({0, 2, 3, 1}), clip_.vision().resolution)));
    }
    return {at::cat(all), at::zeros({images.size(0), 0})};
}

std::string ClipFeatures::resizing() const {
    return fmt::format(
        "shorter side to {0} pixels, bicubic, antialiased, rounded; middle {0}x{0}; normalised by "
        "CLIP's mean and standard deviation",
        clip_.vision().resolution);
}

Tensor clip_preprocess(const Tensor& pixels, std::int64_t resolution) {
    static const std::vector<double> means{0.48145466, 0.4578275, 0.40821073},
        stds{0.26862954, 0.26130258, 0.27577711};
    const std::int64_t height = pixels.size(1), width = pixels.size(2),
                       shorter = std::min(height, width);
    const auto scaled = [&](std::int64_t side) {
        return side == shorter ? resolution : resolution * side / shorter;
    };
    Tensor x = pixels.permute({0, 3, 1, 2}).to(at::kFloat);
    if (scaled(height) != height || scaled(width) != width) {
        x = at::_upsample_bicubic2d_aa(x, {scaled(height), scaled(width)}, false)
                .round()
                .clamp(0, 255);
    }
    x = x.narrow(2, (x.size(2) - resolution) / 2, resolution)
            .narrow(3, (x.size(3) - resolution) / 2, resolution);
    const auto per_channel = [&](const std::vector<double>& values) {
        return at::tensor(values, at::kFloat).view({1, 3, 1, 1});
    };
    return (x.expand({x.size(0), 3, resolution, resolution}) / 255 - per_channel(means)) /
           per_channel(stds);
}

}  // namespace atelier::metrics
