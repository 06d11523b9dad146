#include "atelier/metrics/dinov2.h"

#include <algorithm>

#include "atelier/core/error.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t dinov2_batch = 50;
constexpr double dinov2_eps = 1e-6;
constexpr const char* dinov2_hint =
    "are these the weights of transformers' Dinov2Model (small, base or large)?";

/// Shape of tensor `name`, of `dimensions` dimensions, all positive.
std::vector<std::int64_t> shape_of(const models::NamedTensors& weights, const std::string& name,
                                   std::size_t dimensions, const std::string& where) {
    const auto found = weights.find(name);
    if (found == weights.end())
        core::fail("{}: has no tensor \"{}\"; {}", where, name, dinov2_hint);
    std::vector<std::int64_t> shape = found->second().sizes().vec();
    if (shape.size() != dimensions || std::ranges::any_of(shape, [](auto n) { return n < 1; }))
        core::fail("{}: tensor \"{}\" is {}, and {} dimensions are expected; {}", where, name,
                   core::to_string(shape), dimensions, dinov2_hint);
    return shape;
}

/// What the names of layer `i` begin with.
std::string layer_name(std::int64_t i) { return "encoder.layer." + std::to_string(i) + "."; }

/// Transformers' names for the tensors of the authors' files (facebookresearch/dinov2), whose
/// attention holds query, key and value in one; other files as they are.
models::NamedTensors with_transformers_names(const models::NamedTensors& weights,
                                             const std::string& where) {
    if (!weights.contains("blocks.0.norm1.weight")) return weights;
    static const std::vector<std::pair<std::string, std::string>> whole{
        {"cls_token", "embeddings.cls_token"},
        {"pos_embed", "embeddings.position_embeddings"},
        {"register_tokens", "embeddings.register_tokens"},
        {"patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"},
        {"patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"},
        {"norm.weight", "layernorm.weight"},
        {"norm.bias", "layernorm.bias"},
    };
    static const std::vector<std::pair<std::string, std::string>> of_layer{
        {"norm1.weight", "norm1.weight"},
        {"norm1.bias", "norm1.bias"},
        {"attn.proj.weight", "attention.output.dense.weight"},
        {"attn.proj.bias", "attention.output.dense.bias"},
        {"ls1.gamma", "layer_scale1.lambda1"},
        {"norm2.weight", "norm2.weight"},
        {"norm2.bias", "norm2.bias"},
        {"mlp.fc1.weight", "mlp.fc1.weight"},
        {"mlp.fc1.bias", "mlp.fc1.bias"},
        {"mlp.fc2.weight", "mlp.fc2.weight"},
        {"mlp.fc2.bias", "mlp.fc2.bias"},
        {"ls2.gamma", "layer_scale2.lambda1"},
    };
    models::NamedTensors renamed;
    const auto rename = [&](const std::string& from, const std::string& to) {
        if (const auto found = weights.find(from); found != weights.end())
            renamed[to] = found->second;
    };
    for (const auto& [from, to] : whole) rename(from, to);
    for (std::int64_t i = 0;; ++i) {
        const std::string block = fmt::format("blocks.{}.", i), layer = layer_name(i);
        if (!weights.contains(block + "norm1.weight")) return renamed;
        for (const auto& [from, to] : of_layer) rename(block + from, layer + to);
        for (const char* suffix : {"weight", "bias"}) {
            const std::string name = block + "attn.qkv." + suffix;
            const auto found = weights.find(name);
            if (found == weights.end()) continue;  // reported as the query that is missing
            const std::string parts[]{"query", "key", "value"};
            for (std::int64_t part = 0; part < 3; ++part) {
                renamed[layer + "attention.attention." + parts[part] + "." + suffix] =
                    [read = found->second, name, part, where] {
                        const Tensor all = read();
                        if (all.dim() == 0 || all.size(0) % 3 != 0)
                            core::fail(
                                "{}: tensor \"{}\" is {}, whose rows are not query, key and "
                                "value; {}",
                                where, name, core::to_string(all.sizes().vec()), dinov2_hint);
                        return all.narrow(0, part * (all.size(0) / 3), all.size(0) / 3);
                    };
            }
        }
    }
}

/// The forward pass on tokens [N,T,width].
struct Dinov2Pass {
    const backends::Parameters& parameters;
    std::int64_t width;

    Tensor norm(const Tensor& x, const std::string& name) const {
        return at::layer_norm(x, {width}, parameters.at(name + ".weight"),
                              parameters.at(name + ".bias"), dinov2_eps);
    }
    Tensor linear(const Tensor& x, const std::string& name) const {
        return at::linear(x, parameters.at(name + ".weight"), parameters.at(name + ".bias"));
    }
    Tensor attention(const Tensor& x, const std::string& name) const {
        const auto heads = [&](const char* projection) {
            return linear(x, name + "attention." + projection)
                .unflatten(2, {-1, Dinov2::head_width})
                .transpose(1, 2);
        };
        const Tensor mixed =
            at::scaled_dot_product_attention(heads("query"), heads("key"), heads("value"));
        return linear(mixed.transpose(1, 2).flatten(2), name + "output.dense");
    }
    Tensor layer(const Tensor& x, const std::string& name) const {
        const Tensor attended = x + attention(norm(x, name + "norm1"), name + "attention.") *
                                        parameters.at(name + "layer_scale1.lambda1");
        const Tensor inner = at::gelu(linear(norm(attended, name + "norm2"), name + "mlp.fc1"));
        return attended +
               linear(inner, name + "mlp.fc2") * parameters.at(name + "layer_scale2.lambda1");
    }
};

}  // namespace

Dinov2::Dinov2(const std::filesystem::path& weights, at::Device device)
    : Dinov2(models::read_named_tensors(weights), weights.string(), device) {}

Dinov2::Dinov2(const models::NamedTensors& named, const std::string& where, at::Device device) {
    const std::string embeddings = "embeddings.";
    const models::NamedTensors weights = with_transformers_names(named, where);
    if (weights.contains(embeddings + "register_tokens"))
        core::fail("{}: has register tokens, and distances are defined on DINOv2 without; {}",
                   where, dinov2_hint);
    const auto patches =
        shape_of(weights, embeddings + "patch_embeddings.projection.weight", 4, where);
    const auto positions = shape_of(weights, embeddings + "position_embeddings", 3, where);
    width_ = patches[0];
    patch_ = patches[2];
    while (weights.contains(layer_name(layers_) + "norm1.weight")) ++layers_;
    while ((grid_ + 1) * (grid_ + 1) < positions[1]) ++grid_;
    if (width_ % head_width != 0)
        core::fail("{}: its width is {}, which is no multiple of a head's {} channels; {}", where,
                   width_, head_width, dinov2_hint);
    if (layers_ == 0 || resolution % patch_ != 0)
        core::fail(
            "{}: has {} layers and patches of {} pixels, of which images of {} pixels must "
            "be a multiple; {}",
            where, layers_, patch_, resolution, dinov2_hint);
    const auto add = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
        parameters_.set(name,
                        models::tensor_of(weights, name, shape, "DINOv2", dinov2_hint, where));
    };
    const auto add_linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
        add(name + ".weight", {out, in});
        add(name + ".bias", {out});
    };
    const auto add_norm = [&](const std::string& name) {
        add(name + ".weight", {width_});
        add(name + ".bias", {width_});
    };
    add(embeddings + "cls_token", {1, 1, width_});
    add(embeddings + "position_embeddings", {1, grid_ * grid_ + 1, width_});
    add(embeddings + "patch_embeddings.projection.weight", {width_, 3, patch_, patch_});
    add(embeddings + "patch_embeddings.projection.bias", {width_});
    add_norm("layernorm");
    for (std::int64_t i = 0; i < layers_; ++i) {
        const std::string name = layer_name(i);
        const std::int64_t hidden = shape_of(weights, name + "mlp.fc1.weight", 2, where)[0];
        for (const char* norm : {"norm1", "norm2"}) add_norm(name + norm);
        for (const char* projection : {"query", "key", "value"})
            add_linear(name + "attention.attention." + projection, width_, width_);
        add_linear(name + "attention.output.dense", width_, width_);
        add_linear(name + "mlp.fc1", hidden, width_);
        add_linear(name + "mlp.fc2", width_, hidden);
        for (const char* scale : {"layer_scale1", "layer_scale2"})
            add(name + scale + ".lambda1", {width_});
    }
    hash_ = backends::hash_of(parameters_);
    parameters_ = parameters_.to(device);
}

std::string Dinov2::resizing() const {
    return "bicubic to 224x224 in float, antialiased; normalised by ImageNet's mean and standard "
           "deviation";
}

Tensor Dinov2::embed(const Tensor& preprocessed) const {
    const at::NoGradGuard no_gradients;
    const auto at = [&](const char* name) -> const Tensor& {
        return parameters_.at(std::string("embeddings.") + name);
    };
    const Tensor map = at::conv2d(preprocessed, at("patch_embeddings.projection.weight"),
                                  at("patch_embeddings.projection.bias"), patch_);
    Tensor positions = at("position_embeddings");
    if (map.size(2) != grid_ || map.size(3) != grid_) {
        const Tensor of_patches = positions.narrow(1, 1, grid_ * grid_)
                                      .unflatten(1, {grid_, grid_})
                                      .permute({0, 3, 1, 2});
        const Tensor resized =
            at::upsample_bicubic2d(of_patches, {map.size(2), map.size(3)}, false);
        positions = at::cat({positions.narrow(1, 0, 1), resized.flatten(2).transpose(1, 2)}, 1);
    }
    const Tensor tokens = map.flatten(2).transpose(1, 2);
    Tensor x = at::cat({at("cls_token").expand({map.size(0), 1, width_}), tokens}, 1) + positions;
    const Dinov2Pass pass{parameters_, width_};
    for (std::int64_t i = 0; i < layers_; ++i) x = pass.layer(x, layer_name(i));
    return pass.norm(x.select(1, 0), "layernorm");
}

Features Dinov2::features(const Tensor& images) const {
    if (images.dim() != 4 || (images.size(1) != 1 && images.size(1) != 3)) {
        core::fail("DINOv2: it reads images with 1 or 3 channels, these samples are {}",
                   core::to_string(images.sizes().vec()));
    }
    const at::Device device = parameters_.list().front().device();
    std::vector<Tensor> all{at::zeros({0, width_})};
    for (std::int64_t first = 0; first < images.size(0); first += dinov2_batch) {
        const std::int64_t count = std::min(dinov2_batch, images.size(0) - first);
        const Tensor batch = images.narrow(0, first, count).to(device, at::kFloat);
        const Tensor levels = ((batch + 1) * 127.5)
                                  .round()
                                  .clamp(0, 255)
                                  .expand({count, 3, batch.size(2), batch.size(3)});
        all.push_back(embed(dinov2_preprocess(levels)).to(at::kCPU));
    }
    return {at::cat(all), at::zeros({images.size(0), 0})};
}

Tensor dinov2_preprocess(const Tensor& levels) {
    const auto per_channel = [&](std::initializer_list<double> values) {
        return at::tensor(std::vector<double>(values), at::kFloat)
            .view({1, 3, 1, 1})
            .to(levels.device());
    };
    const Tensor resized = at::_upsample_bicubic2d_aa(
        levels.contiguous(), {Dinov2::resolution, Dinov2::resolution}, false);
    return (resized / 255 - per_channel({0.485, 0.456, 0.406})) /
           per_channel({0.229, 0.224, 0.225});
}

}  // namespace atelier::metrics
