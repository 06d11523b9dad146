#include <algorithm>
#include <filesystem>

#include "atelier/diffusion/denoiser.h"
#include "atelier/networks/architecture.h"
#include "backends/tensors.h"
#include "diffusion/golden_weights.h"

/// The U-Nets and preconditionings against independent implementations
/// (scripts/make_network_golden.py).
namespace atelier::diffusion {

namespace {

class NetworkGolden : public testing::TestWithParam<std::string> {
protected:
    NetworkGolden()
        : file_(std::filesystem::path(ATELIER_SOURCE_DIR) /
                fmt::format("tests/golden/{}.safetensors", GetParam())),
          tensors_(backends::read_parameters(file_)),
          about_(core::parse_json(file_.metadata().at("about"), "about")),
          network_(networks::make_network(core::JsonObject(about_.at("config"), "config"))),
          noise_schedule_(NoiseSchedule::read(core::JsonObject(about_.at("config"), "config"))) {
        for (const auto& spec : networks::trace(network_).parameters)
            parameters_.set(spec.name, golden_weights(spec.name, spec.shape));
        if (tensors_.contains("labels")) condition_.labels = tensors_.at("labels");
        if (tensors_.contains("augment")) condition_.augment = tensors_.at("augment");
    }

    /// The largest relative distance over the samples, which differ in sigma.
    static double worst_sample(const Tensor& actual, const Tensor& expected) {
        double worst = 0;
        for (std::int64_t i = 0; i < expected.size(0); ++i)
            worst = std::max(worst, backends::relative_distance(actual[i], expected[i]));
        return worst;
    }

    core::SafetensorsFile file_;
    backends::Parameters tensors_, parameters_;
    nlohmann::json about_;
    networks::Network network_;
    NoiseSchedule noise_schedule_;
    Condition condition_;
};

}  // namespace

TEST_P(NetworkGolden, reads_the_parameters_of_the_reference_by_name_and_shape) {
    const auto expected = about_.at("parameters").get<std::map<std::string, graph::Shape>>();
    std::map<std::string, graph::Shape> ours;
    for (const auto& spec : networks::trace(network_).parameters) ours[spec.name] = spec.shape;
    EXPECT_EQ(ours, expected);
}

TEST_P(NetworkGolden, denoises_like_the_reference) {
    const at::NoGradGuard no_gradients;
    const EdmDenoiser denoiser(network_, parameters_, noise_schedule_);
    EXPECT_LT(worst_sample(denoiser.denoise(tensors_.at("x"), tensors_.at("sigma"), condition_),
                           tensors_.at("denoised")),
              1e-5);
}

TEST_P(NetworkGolden, has_the_gradients_of_the_reference) {
    const EdmDenoiser denoiser(network_, parameters_, noise_schedule_);
    parameters_.require_gradients(true);
    const Tensor x = tensors_.at("x").clone().requires_grad_();
    denoiser.denoise(x, tensors_.at("sigma"), condition_).square().mean().backward();
    EXPECT_LT(worst_sample(x.grad(), tensors_.at("slope:x")), 1e-5);
    const backends::Parameters gradients = tensors_.subset("slope:model.");
    EXPECT_EQ(gradients.tensors().size(), 4U);
    for (const auto& [name, gradient] : gradients.tensors()) {
        EXPECT_LT(backends::relative_distance(parameters_.at("model." + name).grad(), gradient),
                  1e-5)
            << name;
    }
}

TEST_P(NetworkGolden, computes_nearly_the_same_in_bfloat16) {
    const at::NoGradGuard no_gradients;
    const EdmDenoiser denoiser(network_, parameters_, noise_schedule_, {at::kBFloat16});
    const Tensor denoised = denoiser.denoise(tensors_.at("x"), tensors_.at("sigma"), condition_);
    EXPECT_EQ(denoised.scalar_type(), at::kFloat);
    const double distance = worst_sample(denoised, tensors_.at("denoised"));
    EXPECT_LT(distance, 5e-2);
    EXPECT_GT(distance, 1e-4) << "bfloat16 was not at work";
}

/// The files of tests/golden that scripts/make_network_golden.py has written: those whose names
/// begin with an architecture's.
std::vector<std::string> golden_files() {
    std::vector<std::string> names;
    for (const auto& entry :
         std::filesystem::directory_iterator(ATELIER_SOURCE_DIR "/tests/golden")) {
        const std::string name = entry.path().stem().string();
        const bool of_network =
            std::ranges::any_of(networks::architectures(),
                                [&](const auto& one) { return name.starts_with(one + "_"); });
        if (of_network && entry.path().extension() == ".safetensors") names.push_back(name);
    }
    std::ranges::sort(names);
    return names;
}

TEST(NetworkGoldenFiles, are_there_of_every_network_that_a_run_trains_on_images) {
    const std::vector<std::string> files = golden_files();
    for (const auto& [name, architecture] : networks::known_architectures()) {
        // The MLP is ours alone; sd_unet's golden values are those of diffusers directories.
        if (architecture.samples != networks::Architecture::Samples::images) continue;
        EXPECT_TRUE(std::ranges::any_of(files, [&](const std::string& file) {
            return file.starts_with(name + "_");
        })) << name;
    }
}

INSTANTIATE_TEST_SUITE_P(Files, NetworkGolden, testing::ValuesIn(golden_files()),
                         [](const auto& info) { return info.param; });

}  // namespace atelier::diffusion
