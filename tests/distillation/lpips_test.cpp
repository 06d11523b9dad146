#include "atelier/distillation/lpips.h"

#include <gtest/gtest.h>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/error.h"
#include "backends/tensors.h"
#include "core/test_folder.h"
#include "diffusion/golden_weights.h"

namespace atelier::distillation {
namespace {

using diffusion::golden_weights;

struct Layer {
    int number;
    std::int64_t out, in, kernel;
};

const std::map<std::string, std::vector<Layer>> backbones{
    {"vgg",
     {{0, 64, 3, 3},
      {2, 64, 64, 3},
      {5, 128, 64, 3},
      {7, 128, 128, 3},
      {10, 256, 128, 3},
      {12, 256, 256, 3},
      {14, 256, 256, 3},
      {17, 512, 256, 3},
      {19, 512, 512, 3},
      {21, 512, 512, 3},
      {24, 512, 512, 3},
      {26, 512, 512, 3},
      {28, 512, 512, 3}}},
    {"alex",
     {{0, 64, 3, 11}, {3, 192, 64, 5}, {6, 384, 192, 3}, {8, 256, 384, 3}, {10, 256, 256, 3}}}};
const std::map<std::string, std::vector<std::int64_t>> seen{{"vgg", {64, 128, 256, 512, 512}},
                                                            {"alex", {64, 192, 384, 256, 256}}};

backends::Parameters backbone(const std::string& network) {
    backends::Parameters weights;
    for (const Layer& layer : backbones.at(network)) {
        const std::string name = "features." + std::to_string(layer.number);
        weights.set(
            name + ".weight",
            golden_weights(name + ".weight", {layer.out, layer.in, layer.kernel, layer.kernel}) *
                std::sqrt(2.0));
        weights.set(name + ".bias", golden_weights(name + ".bias", {layer.out}));
    }
    return weights;
}

backends::Parameters linear(const std::string& network) {
    backends::Parameters weights;
    for (std::size_t i = 0; i < 5; ++i) {
        const std::string name = "lin" + std::to_string(i) + ".model.1.weight";
        weights.set(name, golden_weights(name, {1, seen.at(network)[i], 1, 1}).abs());
    }
    return weights;
}

Tensor images(const std::string& name, std::int64_t channels, std::int64_t size) {
    const Tensor values = golden_weights(name, {2, channels, size, size});
    return values / values.abs().max();
}

class LpipsGolden : public testing::TestWithParam<const char*> {};

TEST_P(LpipsGolden, distances_and_gradients_match_the_authors_package) {
    const std::string network = GetParam();
    const core::TestFolder folder;
    backends::write_parameters(folder / "trunk.safetensors", backbone(network));
    backends::write_parameters(folder / "linear.safetensors", linear(network));
    const Lpips lpips(lpips_network(network), folder / "trunk.safetensors",
                      folder / "linear.safetensors");
    const backends::Parameters golden =
        backends::read_parameters(ATELIER_SOURCE_DIR "/tests/golden/lpips.safetensors");
    for (const auto& [channels, size] : {std::pair{3, 64}, std::pair{1, 80}}) {
        const std::string name = network + "/" + std::to_string(channels) + "/";
        const Tensor a = images(name + "a", channels, size).requires_grad_(true),
                     b = images(name + "b", channels, size);
        const Tensor distance = lpips.distance(a, b);
        EXPECT_LT(backends::relative_distance(distance.detach(), golden.at(name + "distance")),
                  1e-5);
        const Tensor gradient = torch::autograd::grad({distance.sum()}, {a})[0];
        // Within 1e-4 on CPUs with AVX-512; with AVX2 only, rounding changes the branch of a ReLU
        // or a maximum, and VGG's differs by 4e-3.
        EXPECT_LT(backends::relative_distance(gradient.narrow(0, 0, 1).narrow(1, 0, 1),
                                              golden.at(name + "slope")),
                  1e-2);
        EXPECT_LT(backends::relative_distance(lpips(a.detach(), b).reshape({1}),
                                              golden.at(name + "resized")),
                  1e-5);
    }
}

INSTANTIATE_TEST_SUITE_P(Every, LpipsGolden, testing::Values("vgg", "alex"));

TEST(Lpips, of_equal_images_is_zero_with_a_finite_gradient) {
    const core::TestFolder folder;
    backends::Parameters all = backbone("alex");
    all.merge(linear("alex"), "");
    backends::write_parameters(folder / "all.safetensors", all);
    const Lpips lpips(Lpips::Network::alex, folder / "all.safetensors", "");
    const Tensor a = at::zeros({1, 3, 64, 64}).requires_grad_(true);
    const Tensor distance = lpips(a, a.detach());
    EXPECT_EQ(distance.item<float>(), 0);
    EXPECT_TRUE(at::isfinite(torch::autograd::grad({distance}, {a})[0]).all().item<bool>());
}

TEST(Lpips, names_weights_that_are_missing_or_of_another_network) {
    const core::TestFolder folder;
    backends::write_parameters(folder / "trunk.safetensors", backbone("alex"));
    const auto message = [&](Lpips::Network network) {
        return core::error_of([&] { Lpips(network, folder / "trunk.safetensors", ""); });
    };
    EXPECT_NE(message(Lpips::Network::alex).find("lin0.model.1.weight"), std::string::npos);
    EXPECT_NE(message(Lpips::Network::vgg).find("features.0.weight\" is [64,3,11,11]"),
              std::string::npos)
        << message(Lpips::Network::vgg);
    EXPECT_THROW(lpips_network("squeeze"), core::UsageError);
}

}  // namespace
}  // namespace atelier::distillation
