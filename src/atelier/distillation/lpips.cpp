#include "atelier/distillation/lpips.h"

#include <array>

#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include "atelier/backends/torch/transfer.h"
#include "atelier/core/error.h"
#include "atelier/models/state_dictionary.h"

namespace atelier::distillation {

namespace {

constexpr std::int64_t side = 224;
constexpr double eps = 1e-10,
                 tiny = 1e-20;  // tiny: keeps the root differentiable where all channels are zero
// Mean and std by which the backbones normalise channels in [-1,1].
constexpr std::array<double, 3> channel_mean{-0.030, -0.088, -0.188},
    channel_std{0.458, 0.448, 0.450};

/// One convolution with its ReLU and the pooling before it, by its index in torchvision's
/// `features`.
struct Convolution {
    int index;
    std::int64_t in, out, kernel, stride, padding;
    std::int64_t pool;  // kernel size of the max pooling before it (stride 2); 0: none
    bool tapped;        // whether its output enters the distance
};

constexpr std::array<Convolution, 13> vgg{{{0, 3, 64, 3, 1, 1, 0, false},
                                           {2, 64, 64, 3, 1, 1, 0, true},
                                           {5, 64, 128, 3, 1, 1, 2, false},
                                           {7, 128, 128, 3, 1, 1, 0, true},
                                           {10, 128, 256, 3, 1, 1, 2, false},
                                           {12, 256, 256, 3, 1, 1, 0, false},
                                           {14, 256, 256, 3, 1, 1, 0, true},
                                           {17, 256, 512, 3, 1, 1, 2, false},
                                           {19, 512, 512, 3, 1, 1, 0, false},
                                           {21, 512, 512, 3, 1, 1, 0, true},
                                           {24, 512, 512, 3, 1, 1, 2, false},
                                           {26, 512, 512, 3, 1, 1, 0, false},
                                           {28, 512, 512, 3, 1, 1, 0, true}}};
constexpr std::array<Convolution, 5> alex{{{0, 3, 64, 11, 4, 2, 0, true},
                                           {3, 64, 192, 5, 1, 2, 3, true},
                                           {6, 192, 384, 3, 1, 1, 3, true},
                                           {8, 384, 256, 3, 1, 1, 0, true},
                                           {10, 256, 256, 3, 1, 1, 0, true}}};

std::span<const Convolution> convolutions_of(Lpips::Network network) {
    return network == Lpips::Network::vgg ? std::span<const Convolution>(vgg)
                                          : std::span<const Convolution>(alex);
}

/// Copies tensors of a file into the weights of one of LPIPS's networks.
struct WeightLoader {
    backends::Parameters& to;
    std::string network;

    void operator()(const models::NamedTensors& from, const std::string& name,
                    const std::vector<std::int64_t>& shape, const std::string& where) const {
        to.set(name, models::tensor_of(from, name, shape, network,
                                       "LPIPS needs torchvision's VGG-16 or AlexNet, and the lpips "
                                       "package's layer weights",
                                       where));
    }
};

std::string layer_name(std::size_t layer) { return fmt::format("lin{}.model.1.weight", layer); }
std::string parameter_name(const Convolution& conv, const char* part) {
    return fmt::format("features.{}.{}", conv.index, part);
}

/// Images with three channels, as the backbones were trained on them.
Tensor standardised(const Tensor& images) {
    if (images.dim() != 4 || (images.size(1) != 1 && images.size(1) != 3)) {
        core::fail("LPIPS reads images with 1 or 3 channels, these are {}",
                   core::to_string(images.sizes().vec()));
    }
    const auto channels = [](const std::array<double, 3>& values) {
        return at::tensor(at::ArrayRef<double>(values), at::kDouble).view({1, 3, 1, 1});
    };
    static const backends::DeviceConstant mean(channels(channel_mean)), std(channels(channel_std));
    const auto here = [&](const backends::DeviceConstant& constant) {
        return constant.on(images.device(), images.scalar_type());
    };
    return (images.expand({images.size(0), 3, images.size(2), images.size(3)}) - here(mean)) /
           here(std);
}

}  // namespace

Lpips::Network lpips_network(const std::string& name) {
    if (name == "vgg") return Lpips::Network::vgg;
    if (name == "alex") return Lpips::Network::alex;
    throw core::UsageError(
        fmt::format("there is no LPIPS network \"{}\"; known are vgg and alex", name));
}

Lpips::Lpips(Network network, const std::filesystem::path& backbone,
             const std::filesystem::path& linear, at::Device device)
    : network_(network) {
    const WeightLoader load{weights_,
                            network == Network::vgg ? "LPIPS's VGG-16" : "LPIPS's AlexNet"};
    const models::NamedTensors trunk = models::read_named_tensors(backbone);
    for (const Convolution& conv : convolutions_of(network)) {
        load(trunk, parameter_name(conv, "weight"), {conv.out, conv.in, conv.kernel, conv.kernel},
             backbone.string());
        load(trunk, parameter_name(conv, "bias"), {conv.out}, backbone.string());
    }
    const std::filesystem::path& path = linear.empty() ? backbone : linear;
    const models::NamedTensors layers = linear.empty() ? trunk : models::read_named_tensors(linear);
    std::size_t layer = 0;
    for (const Convolution& conv : convolutions_of(network)) {
        if (conv.tapped) load(layers, layer_name(layer++), {1, conv.out, 1, 1}, path.string());
    }
    weights_ = weights_.to(device);
}

std::vector<Tensor> Lpips::layers(const Tensor& images) const {
    std::vector<Tensor> features;
    Tensor x = standardised(images);
    for (const Convolution& conv : convolutions_of(network_)) {
        if (conv.pool > 0) x = at::max_pool2d(x, {conv.pool, conv.pool}, {2, 2});
        x = at::conv2d(x, weights_.at(parameter_name(conv, "weight")),
                       weights_.at(parameter_name(conv, "bias")), {conv.stride, conv.stride},
                       {conv.padding, conv.padding})
                .relu();
        if (conv.tapped) features.push_back(x / ((x.square().sum(1, true) + tiny).sqrt() + eps));
    }
    return features;
}

Tensor Lpips::distance(const Tensor& a, const Tensor& b) const {
    const auto of_a = layers(a), of_b = layers(b);
    Tensor sum = at::zeros({a.size(0)}, a.options());
    for (std::size_t i = 0; i < of_a.size(); ++i) {
        sum = sum + ((of_a[i] - of_b[i]).square() * weights_.at(layer_name(i))).sum(1).mean({1, 2});
    }
    return sum;
}

Tensor Lpips::operator()(const Tensor& generated, const Tensor& target) const {
    const auto resized = [](const Tensor& images) {
        return at::upsample_bilinear2d(images, {side, side}, /*align_corners=*/false);
    };
    return distance(resized(generated), resized(target)).mean();
}

}  // namespace atelier::distillation
