#include "atelier/core/hash.h"
#include "atelier/diffusion/denoiser.h"
#include "ops/tensors.h"

/// The ADM U-Net against an independent implementation (scripts/make_network_golden.py).
namespace atelier::diffusion {

namespace {

/// The script's `weights`: splitmix64 that starts at the name's hash.
Tensor weights(const std::string& name, const ops::Shape& shape) {
    const Tensor numbers = at::empty(shape, at::kFloat);
    const bool vector = shape.size() == 1;
    const double width = vector ? 0.25 : std::sqrt(3.0 / static_cast<double>(numbers.numel() / shape[0]));
    const double centre = vector && name.ends_with(".weight") ? 1.0 : 0.0;
    std::uint64_t state = core::fnv1a(name);
    for (float& number : std::span(numbers.mutable_data_ptr<float>(), static_cast<std::size_t>(numbers.numel()))) {
        state += 0x9E3779B97F4A7C15U;
        std::uint64_t z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9U;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
        z ^= z >> 31;
        number = static_cast<float>(centre + width * (static_cast<double>(z >> 40) / (1 << 23) - 1));
    }
    return numbers;
}

class AdmUNetGolden : public testing::TestWithParam<const char*> {
protected:
    AdmUNetGolden()
        : file_(std::filesystem::path(ATELIER_SOURCE_DIR) / fmt::format("tests/golden/adm_unet_{}.safetensors", GetParam())),
          tensors_(ops::read_parameters(file_)),
          about_(core::parse_json(file_.metadata().at("about"), "about")),
          network_(networks::make_network(core::JsonObject(about_.at("config"), "config"))) {
        for (const auto& spec : networks::trace(network_).parameters) parameters_.set(spec.name, weights(spec.name, spec.shape));
        if (tensors_.contains("labels")) condition_.labels = tensors_.at("labels");
    }

    /// The greatest relative distance over the samples: they differ in sigma, and none may hide behind another.
    static double worst_sample(const Tensor& actual, const Tensor& expected) {
        double worst = 0;
        for (std::int64_t i = 0; i < expected.size(0); ++i) worst = std::max(worst, ops::relative_distance(actual[i], expected[i]));
        return worst;
    }

    core::SafetensorsFile file_;
    ops::Parameters tensors_, parameters_;
    nlohmann::json about_;
    networks::Network network_;
    Condition condition_;
};

}  // namespace

TEST_P(AdmUNetGolden, reads_the_parameters_of_the_reference_by_name_and_shape) {
    const auto expected = about_.at("parameters").get<std::map<std::string, ops::Shape>>();
    std::map<std::string, ops::Shape> ours;
    for (const auto& spec : networks::trace(network_).parameters) ours[spec.name] = spec.shape;
    EXPECT_EQ(ours, expected);
}

TEST_P(AdmUNetGolden, denoises_as_the_reference_does) {
    const at::NoGradGuard no_gradients;
    const EdmDenoiser denoiser(network_, parameters_, 0.5);
    EXPECT_LT(worst_sample(denoiser.denoise(tensors_.at("x"), tensors_.at("sigma"), condition_), tensors_.at("denoised")), 1e-5);
}

TEST_P(AdmUNetGolden, has_the_slopes_of_the_reference) {
    const EdmDenoiser denoiser(network_, parameters_, 0.5);
    parameters_.require_gradients(true);
    const Tensor x = tensors_.at("x").clone().requires_grad_();
    denoiser.denoise(x, tensors_.at("sigma"), condition_).square().mean().backward();
    EXPECT_LT(worst_sample(x.grad(), tensors_.at("slope:x")), 1e-5);
    const ops::Parameters slopes = tensors_.under("slope:model.");
    EXPECT_EQ(slopes.tensors().size(), 4U);
    for (const auto& [name, slope] : slopes.tensors()) {
        EXPECT_LT(ops::relative_distance(parameters_.at("model." + name).grad(), slope), 1e-5) << name;
    }
}

TEST_P(AdmUNetGolden, computes_nearly_the_same_in_bfloat16) {
    const at::NoGradGuard no_gradients;
    const EdmDenoiser denoiser(network_, parameters_, 0.5, /*bfloat16=*/true);
    const Tensor denoised = denoiser.denoise(tensors_.at("x"), tensors_.at("sigma"), condition_);
    EXPECT_EQ(denoised.scalar_type(), at::kFloat);
    const double distance = worst_sample(denoised, tensors_.at("denoised"));
    EXPECT_LT(distance, 5e-2);
    EXPECT_GT(distance, 1e-4) << "bfloat16 was not at work";
}

INSTANTIATE_TEST_SUITE_P(Files, AdmUNetGolden, testing::Values("unconditional", "attention", "patches"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace atelier::diffusion
