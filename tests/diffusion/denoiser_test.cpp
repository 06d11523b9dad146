#include "atelier/diffusion/denoiser.h"

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/diffusion/noise_schedule.h"
#include "backends/tensors.h"
#include "diffusion/gaussian_denoiser.h"

namespace atelier::diffusion {

namespace {

/// A network of two features whose raw output is its labels, and whose bottleneck is its input.
networks::Network echo() {
    networks::Network network;
    network.data_shape = {2};
    network.label_dim = 2;
    network.forward = [](graph::Builder&, const networks::Inputs& in) {
        return networks::Outputs{*in.labels, in.x};
    };
    network.encode = [](graph::Builder&, const networks::Inputs& in) { return in.x; };
    return network;
}

const backends::Parameters no_parameters;

}  // namespace

TEST(Preconditioning, keeps_input_and_target_at_unit_variance) {
    const double sd = 0.5;
    const Tensor sigma = at::tensor({0.002, 0.5, 80.0}, at::kDouble);
    const auto with = NoiseSchedule::edm(sd).preconditioning(sigma);
    const Tensor total = sigma.square() + sd * sd;
    EXPECT_TRUE((with.c_in.square() * total).allclose(at::ones({3}, at::kDouble)));
    // The target (x0 - c_skip x_t)/c_out: x0 - c_skip (x0 + sigma z) has variance (1-c_skip)^2 sd^2
    // + c_skip^2 sigma^2.
    const Tensor target =
        (1 - with.c_skip).square() * sd * sd + with.c_skip.square() * sigma.square();
    EXPECT_TRUE(target.allclose(with.c_out.square()));
    EXPECT_TRUE((with.c_noise * 4).exp().allclose(sigma));
}

TEST(Preconditioning, passes_clean_images_through_and_ignores_pure_noise) {
    const auto with = NoiseSchedule{}.preconditioning(at::tensor({1e-4, 1e4}, at::kDouble));
    EXPECT_NEAR(with.c_skip[0].item<double>(), 1, 1e-6);
    EXPECT_NEAR(with.c_out[0].item<double>(), 1e-4, 1e-8);
    EXPECT_NEAR(with.c_skip[1].item<double>(), 0, 1e-6);
    EXPECT_NEAR(with.c_out[1].item<double>(), 0.5, 1e-6);
}

TEST(Preconditioning, the_loss_weight_undoes_c_out) {
    const Tensor sigma = at::tensor({0.002, 0.5, 80.0}, at::kDouble);
    const Tensor weight = edm_loss_weight(sigma, 0.5);
    EXPECT_TRUE((weight * NoiseSchedule{}.preconditioning(sigma).c_out.square())
                    .allclose(at::ones({3}, at::kDouble)));
    EXPECT_TRUE(weight.allclose(1 / sigma.square() + 1 / 0.25));
}

TEST(Preconditioning, float32_holds_over_all_levels) {
    const Tensor sigma = at::tensor({0.002F, 80.0F});
    const auto single = NoiseSchedule{}.preconditioning(sigma),
               wide = NoiseSchedule{}.preconditioning(sigma.to(at::kDouble));
    EXPECT_LT(((single.c_skip - wide.c_skip) / wide.c_skip).abs().max().item<double>(), 1e-6);
    EXPECT_LT(((single.c_out - wide.c_out) / wide.c_out).abs().max().item<double>(), 1e-6);
}

TEST(ExpandLike, broadcasts_one_value_per_sample) {
    EXPECT_EQ(expand_like(at::ones({3}), at::ones({3, 2, 4, 4})).sizes().vec(),
              (graph::Shape{3, 1, 1, 1}));
    EXPECT_EQ(expand_like(at::ones({3}), at::ones({3, 2})).sizes().vec(), (graph::Shape{3, 1}));
}

TEST(Preconditioning, of_vp_and_ve_matches_table_1_of_karras_et_al) {
    const Tensor sigma = at::tensor({0.01, 1.0, 30.0}, at::kDouble);
    const auto vp = NoiseSchedule(VpNoise{}).preconditioning(sigma),
               ve = NoiseSchedule(VeNoise{}).preconditioning(sigma);
    for (std::int64_t i = 0; i < 3; ++i) {
        const double s = sigma[i].item<double>(), t = vp.c_noise[i].item<double>() / 999;
        EXPECT_NEAR(std::sqrt(std::exp(0.5 * 19.9 * t * t + 0.1 * t) - 1), s, 1e-9 * s + 1e-12)
            << "VP's time belongs to another level";
        EXPECT_DOUBLE_EQ(vp.c_in[i].item<double>(), 1 / std::sqrt(s * s + 1));
        EXPECT_DOUBLE_EQ(vp.c_out[i].item<double>(), -s);
        EXPECT_DOUBLE_EQ(ve.c_noise[i].item<double>(), std::log(s / 2));
        EXPECT_DOUBLE_EQ(ve.c_out[i].item<double>(), s);
        EXPECT_DOUBLE_EQ(
            vp.c_skip[i].item<double>() * ve.c_skip[i].item<double>() * ve.c_in[i].item<double>(),
            1);
    }
}

TEST(EdmDenoiser, with_a_zero_network_is_the_optimum_for_gaussian_data) {
    // c_skip x = s^2/(s^2+sigma^2) x is the closed form if sigma_data is the std of the data.
    const networks::Network network = echo();
    const EdmDenoiser denoiser(network, no_parameters, NoiseSchedule::edm(0.7));
    const Condition silent{at::zeros({3, 2})};
    const GaussianDenoiser exact(0.7);
    const Tensor x = backends::normal({3, 2}, "x"), sigma = at::tensor({0.002F, 0.9F, 80.0F});
    EXPECT_LT(backends::relative_distance(denoiser.denoise(x, sigma, silent),
                                          exact.denoise(x, sigma, {})),
              1e-6);
}

TEST(EdmDenoiser, scales_inputs_and_outputs_per_sample) {
    const Tensor f = backends::normal({3, 2}, "f");
    const networks::Network network = echo();
    const EdmDenoiser denoiser(network, no_parameters, {});
    const Tensor x = backends::normal({3, 2}, "x"), sigma = at::tensor({0.002F, 0.9F, 80.0F});
    const auto [estimate, seen] = denoiser.denoise_and_encode(x, sigma, {f});
    const Tensor c_noise =
        network_inputs(network, x, NoiseSchedule{}.preconditioning(sigma), {f}).c_noise;
    for (std::int64_t i = 0; i < 3; ++i) {
        const double s = sigma[i].item<double>(), total = s * s + 0.25;
        EXPECT_LT(backends::relative_distance(
                      estimate[i], 0.25 / total * x[i] + s * 0.5 / std::sqrt(total) * f[i]),
                  1e-6);
        EXPECT_LT(backends::relative_distance(seen[i], x[i] / std::sqrt(total)), 1e-6);
        EXPECT_NEAR(c_noise[i].item<double>(), std::log(s) / 4, 1e-6);
    }
}

TEST(EdmDenoiser, estimate_bottleneck_and_encode_agree) {
    const nlohmann::json config{
        {"architecture", "mlp"}, {"dimensions", 2}, {"classes", 3}, {"hidden", 8}, {"blocks", 2}};
    const networks::Network network =
        networks::make_network(core::JsonObject(config, "config.json"));
    const backends::Parameters parameters = backends::filled(networks::trace(network).parameters);
    const EdmDenoiser denoiser(network, parameters, {});
    const Tensor x = backends::normal({2, 2}, "x"), sigma = at::tensor({0.1F, 3.0F});
    const std::vector<std::int64_t> classes{2, 0}, others{1, 1};
    const Condition condition = one_hot(classes, 3);
    const auto seen = denoiser.denoise_and_encode(x, sigma, condition);
    EXPECT_TRUE(seen.estimate.equal(denoiser.denoise(x, sigma, condition)));
    EXPECT_TRUE(seen.bottleneck.equal(denoiser.encode(x, sigma, condition)));
    EXPECT_EQ(seen.bottleneck.sizes().vec(), (graph::Shape{2, 8}));
    EXPECT_GT(
        backends::relative_distance(denoiser.denoise(x, sigma, one_hot(others, 3)), seen.estimate),
        1e-3);
}

TEST(EdmDenoiser, a_conditional_network_without_labels_is_an_error) {
    const networks::Network network = echo();
    const EdmDenoiser denoiser(network, no_parameters, {});
    const Tensor x = at::zeros({1, 2}), sigma = at::ones({1});
    backends::expect_contains(backends::error_of([&] { denoiser.denoise(x, sigma, {}); }),
                              "2 classes");
    backends::expect_contains(backends::error_of([&] { denoiser.encode(x, sigma, {}); }),
                              "2 classes");
}

TEST(OneHot, marks_each_samples_class) {
    const std::vector<std::int64_t> classes{2, 0, 2};
    const Tensor labels = one_hot(classes, 3).labels;
    EXPECT_TRUE(labels.equal(
        at::tensor({0.0F, 0.0F, 1.0F, 1.0F, 0.0F, 0.0F, 0.0F, 0.0F, 1.0F}).view({3, 3})));
}

TEST(OneHot, is_undefined_without_classes) {
    const std::vector<std::int64_t> classes{0, 0};
    EXPECT_FALSE(one_hot(classes, 0).labels.defined());
}

TEST(OneHot, a_class_out_of_range_is_named) {
    for (const std::int64_t bad : {-1, 3}) {
        const std::vector<std::int64_t> classes{0, bad};
        const std::string message = backends::error_of([&] { one_hot(classes, 3); });
        backends::expect_contains(message, fmt::format("class {}", bad));
        backends::expect_contains(message, "0 to 2");
    }
}

}  // namespace atelier::diffusion
