#include "atelier/metrics/inception.h"

#include <algorithm>

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/max_pool2d.h>

#include "atelier/core/error.h"
#include "atelier/core/resize.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t inception_batch = 50;
constexpr double norm_eps = 1e-3;

/// A convolution with "same" padding, or none if `padded` is false.
struct Convolution {
    std::string name;
    std::int64_t out, height, width, stride = 1;
    bool padded = true;
};

/// The network's layers, applied through a backend: `at.conv(x, convolution)`, `at.max_pool(x,
/// stride)` and `at.avg_pool(x)` over 3x3 pixels, and `at.concat(values)` along channels.
template <class Backend, class Value>
class InceptionLayers {
public:
    explicit InceptionLayers(Backend& at) : at_(at) {}

    Value pooled(Value x) {
        x = conv(x, "Conv2d_1a_3x3", 32, 3, 3, 2, false);
        x = conv(x, "Conv2d_2a_3x3", 32, 3, 3, 1, false);
        x = conv(x, "Conv2d_2b_3x3", 64, 3, 3);
        x = at_.max_pool(x, 2);
        x = conv(x, "Conv2d_3b_1x1", 80, 1, 1);
        x = conv(x, "Conv2d_4a_3x3", 192, 3, 3, 1, false);
        x = at_.max_pool(x, 2);
        x = inception_a(x, "Mixed_5b", 32);
        x = inception_a(x, "Mixed_5c", 64);
        x = inception_a(x, "Mixed_5d", 64);
        x = inception_b(x, "Mixed_6a");
        x = inception_c(x, "Mixed_6b", 128);
        x = inception_c(x, "Mixed_6c", 160);
        x = inception_c(x, "Mixed_6d", 160);
        x = inception_c(x, "Mixed_6e", 192);
        x = inception_d(x, "Mixed_7a");
        x = inception_e(x, "Mixed_7b", false);
        return inception_e(x, "Mixed_7c", true);
    }

private:
    Value conv(const Value& x, const std::string& name, std::int64_t out, std::int64_t height,
               std::int64_t width, std::int64_t stride = 1, bool padded = true) {
        return at_.conv(x, Convolution{name, out, height, width, stride, padded});
    }

    Value inception_a(const Value& x, const std::string& name, std::int64_t pool) {
        const Value five =
            conv(conv(x, name + ".branch5x5_1", 48, 1, 1), name + ".branch5x5_2", 64, 5, 5);
        const Value three =
            conv(conv(x, name + ".branch3x3dbl_1", 64, 1, 1), name + ".branch3x3dbl_2", 96, 3, 3);
        return at_.concat({conv(x, name + ".branch1x1", 64, 1, 1), five,
                           conv(three, name + ".branch3x3dbl_3", 96, 3, 3),
                           conv(at_.avg_pool(x), name + ".branch_pool", pool, 1, 1)});
    }

    Value inception_b(const Value& x, const std::string& name) {
        const Value three =
            conv(conv(x, name + ".branch3x3dbl_1", 64, 1, 1), name + ".branch3x3dbl_2", 96, 3, 3);
        return at_.concat({conv(x, name + ".branch3x3", 384, 3, 3, 2, false),
                           conv(three, name + ".branch3x3dbl_3", 96, 3, 3, 2, false),
                           at_.max_pool(x, 2)});
    }

    Value inception_c(const Value& x, const std::string& name, std::int64_t inner) {
        Value seven =
            conv(conv(x, name + ".branch7x7_1", inner, 1, 1), name + ".branch7x7_2", inner, 1, 7);
        seven = conv(seven, name + ".branch7x7_3", 192, 7, 1);
        Value twice = conv(conv(x, name + ".branch7x7dbl_1", inner, 1, 1), name + ".branch7x7dbl_2",
                           inner, 7, 1);
        twice = conv(conv(twice, name + ".branch7x7dbl_3", inner, 1, 7), name + ".branch7x7dbl_4",
                     inner, 7, 1);
        return at_.concat({conv(x, name + ".branch1x1", 192, 1, 1), seven,
                           conv(twice, name + ".branch7x7dbl_5", 192, 1, 7),
                           conv(at_.avg_pool(x), name + ".branch_pool", 192, 1, 1)});
    }

    Value inception_d(const Value& x, const std::string& name) {
        const Value three = conv(conv(x, name + ".branch3x3_1", 192, 1, 1), name + ".branch3x3_2",
                                 320, 3, 3, 2, false);
        Value seven =
            conv(conv(x, name + ".branch7x7x3_1", 192, 1, 1), name + ".branch7x7x3_2", 192, 1, 7);
        seven = conv(seven, name + ".branch7x7x3_3", 192, 7, 1);
        return at_.concat(
            {three, conv(seven, name + ".branch7x7x3_4", 192, 3, 3, 2, false), at_.max_pool(x, 2)});
    }

    Value split_conv(const Value& x, const std::string& name) {
        return at_.concat({conv(x, name + "a", 384, 1, 3), conv(x, name + "b", 384, 3, 1)});
    }

    /// The last block max-pools where the others average, as in the original graph of the weights.
    Value inception_e(const Value& x, const std::string& name, bool last) {
        const Value three =
            split_conv(conv(x, name + ".branch3x3_1", 384, 1, 1), name + ".branch3x3_2");
        const Value twice =
            conv(conv(x, name + ".branch3x3dbl_1", 448, 1, 1), name + ".branch3x3dbl_2", 384, 3, 3);
        const Value around = last ? at_.max_pool(x, 1) : at_.avg_pool(x);
        return at_.concat({conv(x, name + ".branch1x1", 320, 1, 1), three,
                           split_conv(twice, name + ".branch3x3dbl_3"),
                           conv(around, name + ".branch_pool", 192, 1, 1)});
    }

    Backend& at_;
};

/// Backend that reads the convolutions from a file and folds their batch norm. A value is a number
/// of channels.
struct WeightFolder {
    const models::NamedTensors& weights;
    const std::string& where;
    backends::Parameters folded{};

    Tensor tensor(const std::string& name, const std::vector<std::int64_t>& shape) const {
        return models::tensor_of(weights, name, shape, "Inception-v3",
                                 "is this Inception-v3 of 2015 with torchvision's names?", where);
    }

    std::int64_t conv(std::int64_t in, const Convolution& c) {
        const Tensor weight = tensor(c.name + ".conv.weight", {c.out, in, c.height, c.width});
        const auto norm = [&](const char* part) { return tensor(c.name + ".bn." + part, {c.out}); };
        const Tensor scale = norm("weight") / (norm("running_var") + norm_eps).sqrt();
        folded.set(c.name + ".weight", weight * scale.view({-1, 1, 1, 1}));
        folded.set(c.name + ".bias", norm("bias") - norm("running_mean") * scale);
        return c.out;
    }
    static std::int64_t max_pool(std::int64_t x, std::int64_t) { return x; }
    static std::int64_t avg_pool(std::int64_t x) { return x; }
    static std::int64_t concat(std::initializer_list<std::int64_t> values) {
        std::int64_t sum = 0;
        for (const std::int64_t value : values) sum += value;
        return sum;
    }
};

/// Backend that computes the network.
struct ForwardPass {
    const backends::Parameters& layers;

    Tensor conv(const Tensor& x, const Convolution& c) const {
        const std::vector<std::int64_t> padding =
            c.padded ? std::vector{c.height / 2, c.width / 2} : std::vector<std::int64_t>{0, 0};
        return at::conv2d(x, layers.at(c.name + ".weight"), layers.at(c.name + ".bias"),
                          {c.stride, c.stride}, padding)
            .relu_();
    }
    static Tensor max_pool(const Tensor& x, std::int64_t stride) {
        return at::max_pool2d(x, {3, 3}, {stride, stride}, {stride == 1, stride == 1});
    }
    static Tensor avg_pool(const Tensor& x) {
        return at::avg_pool2d(x, {3, 3}, {1, 1}, {1, 1}, /*ceil_mode=*/false,
                              /*count_include_pad=*/false);
    }
    static Tensor concat(std::initializer_list<Tensor> values) {
        return at::cat(at::TensorList(values.begin(), values.size()), 1);
    }
};

/// Interpolation matrix [size, length] for one axis.
Tensor bilinear_weights(std::int64_t length, std::int64_t size) {
    Tensor weights = at::zeros({size, length}, at::kFloat);
    float* values = weights.mutable_data_ptr<float>();
    const float step = static_cast<float>(length) / static_cast<float>(size);
    for (std::int64_t i = 0; i < size; ++i) {
        const float position = static_cast<float>(i) * step;
        const auto before = std::min(static_cast<std::int64_t>(position), length - 1);
        const float fraction = position - static_cast<float>(before);
        values[i * length + before] += 1 - fraction;
        values[i * length + std::min(before + 1, length - 1)] += fraction;
    }
    return weights;
}

}  // namespace

Tensor resized_like_tensorflow(const Tensor& images, std::int64_t size) {
    const Tensor rows = bilinear_weights(images.size(2), size).to(images.device()),
                 columns = bilinear_weights(images.size(3), size).to(images.device());
    return at::matmul(at::matmul(rows, images), columns.t());
}

Tensor resized_like_pillow(const Tensor& images, std::int64_t size) {
    const auto filter = [&](std::int64_t length) {
        const std::vector<float> weights = core::filter_matrix(
            static_cast<int>(length), static_cast<int>(size), core::ResizeFilter::bicubic);
        return at::tensor(weights, at::kFloat).view({size, length}).to(images.device());
    };
    const Tensor wide = at::matmul(images, filter(images.size(3)).t());
    return at::matmul(filter(images.size(2)), wide).clamp(0, 255);
}

Inception::Inception(const std::filesystem::path& path, at::Device device, InceptionResize resize)
    : Inception(models::read_named_tensors(path), path.string(), device, resize) {}

Inception::Inception(const models::NamedTensors& all, const std::string& where, at::Device device,
                     InceptionResize resize)
    : resize_(resize) {
    WeightFolder folder{all, where};
    const std::int64_t width = InceptionLayers<WeightFolder, std::int64_t>(folder).pooled(3);
    layers_ = folder.folded;
    layers_.set("fc.weight", folder.tensor("fc.weight", {classes, width}));
    hash_ = backends::hash_of(layers_);
    layers_ = layers_.to(device);
}

std::string Inception::resizing() const {
    return resize_ == InceptionResize::tensorflow
               ? "bilinear to 299x299, TensorFlow 1, no antialiasing"
               : "bicubic to 299x299 in float, Pillow, antialiased (clean)";
}

Features Inception::features(const Tensor& images) const {
    if (images.dim() != 4 || (images.size(1) != 1 && images.size(1) != 3)) {
        core::fail("Inception: it reads images with 1 or 3 channels, these samples are {}",
                   core::to_string(images.sizes().vec()));
    }
    at::NoGradGuard no_gradients;
    ForwardPass forward{layers_};
    std::vector<Tensor> features, logits;
    for (std::int64_t first = 0; first < images.size(0); first += inception_batch) {
        const std::int64_t count = std::min(inception_batch, images.size(0) - first);
        const Tensor batch =
            images.narrow(0, first, count).to(layers_.at("fc.weight").device(), at::kFloat);
        const Tensor levels = ((batch + 1) * 127.5)
                                  .round()
                                  .clamp(0, 255)
                                  .expand({count, 3, batch.size(2), batch.size(3)});
        const Tensor resized = resize_ == InceptionResize::tensorflow
                                   ? resized_like_tensorflow(levels, resolution)
                                   : resized_like_pillow(levels, resolution);
        const Tensor seen = (resized - 128) / 128;
        const Tensor pooled = InceptionLayers<ForwardPass, Tensor>(forward)
                                  .pooled(seen.contiguous(at::MemoryFormat::ChannelsLast))
                                  .mean({2, 3});
        features.push_back(pooled.to(at::kCPU));
        logits.push_back(at::matmul(pooled, layers_.at("fc.weight").t()).to(at::kCPU));
    }
    if (features.empty()) return {at::zeros({0, features_width}), at::zeros({0, classes})};
    return {at::cat(features), at::cat(logits)};
}

}  // namespace atelier::metrics
