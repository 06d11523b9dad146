#include "atelier/diffusion/ddpm_schedule.h"

#include "atelier/diffusion/samplers.h"
#include "backends/tensors.h"

namespace atelier::diffusion {

namespace {

Parametrisation stable_diffusion(const std::string& prediction = "epsilon") {
    const nlohmann::json config{{"preconditioning", "ddpm"},
                                {"scheduler",
                                 {{"beta_schedule", "scaled_linear"},
                                  {"beta_start", 0.00085},
                                  {"beta_end", 0.012},
                                  {"clip_sample", false},
                                  {"prediction_type", prediction},
                                  {"timestep_spacing", "trailing"}}}};
    return read_parametrisation(core::JsonObject(config, "here"));
}

/// A network of images [2,2,2] whose bottleneck is its input.
networks::Network network_that(
    std::function<graph::Value(graph::Builder&, const networks::Inputs&)> predicts) {
    networks::Network network;
    network.data_shape = {2, 2, 2};
    network.forward = [=](graph::Builder& ops, const networks::Inputs& in) {
        return networks::Outputs{predicts(ops, in), in.x};
    };
    return network;
}

const backends::Parameters nothing_learnt;

Tensor normal(std::uint64_t index) {
    core::RandomStream stream(1, "x", index);
    return normal_tensor(stream, {3, 2, 2, 2}).to(at::kDouble);
}

}  // namespace

TEST(DdpmParametrisation, every_level_of_the_schedule_is_a_whole_time_step) {
    const Parametrisation parametrisation = stable_diffusion();
    const auto levels = matching_levels(parametrisation, default_range(parametrisation));
    ASSERT_EQ(levels.size(), 1000U);
    const Tensor t =
        precondition(at::tensor(levels, at::kDouble).to(at::kFloat), parametrisation).c_noise;
    EXPECT_LT((t - at::arange(1000, at::kFloat)).abs().max().item<double>(), 1e-3);
    EXPECT_NEAR(levels.front(), 0.02916,
                1e-5);  // sqrt((1 - a) / a) of Stable Diffusion's first and last step
    EXPECT_NEAR(levels.back(), 14.6146, 1e-3);
}

TEST(DdpmParametrisation,
     a_perfect_epsilon_or_v_prediction_gives_the_clean_samples_and_gets_ddpms_own_x_t) {
    const Tensor clean = normal(0), noise = normal(1);
    for (const char* prediction : {"epsilon", "v_prediction"}) {
        const Parametrisation parametrisation = stable_diffusion(prediction);
        const double alpha_cumprod = parametrisation.schedule->alphas_cumprod[400],
                     alpha = std::sqrt(alpha_cumprod), sigma = std::sqrt(1 - alpha_cumprod);
        const bool v_prediction =
            parametrisation.schedule->prediction == DdpmSchedule::Prediction::v_prediction;
        networks::Network echo = network_that([](graph::Builder& ops, const networks::Inputs& in) {
            return ops.image(*in.labels, 2, 2);
        });
        echo.label_dim = 2;
        echo.tokens = 4;
        const Condition answer{
            (v_prediction ? alpha * noise - sigma * clean : noise).flatten(2).transpose(1, 2)};
        const EdmDenoiser denoiser(echo, nothing_learnt, parametrisation);
        const Tensor level = at::full({3}, sigma / alpha, at::kDouble),
                     x_t = clean + expand_like(level, clean) * noise;
        const auto [estimate, seen] = denoiser.denoise_and_encode(x_t, level, answer);
        EXPECT_TRUE(estimate.allclose(clean, 1e-9, 1e-9)) << prediction;
        EXPECT_TRUE(seen.allclose(alpha * clean + sigma * noise, 1e-9, 1e-9));
        const Tensor t =
            network_inputs(echo, x_t, precondition(level, parametrisation), answer).c_noise;
        EXPECT_NEAR(t[0].item<double>(), 400, 1e-6);
    }
}

TEST(DdpmParametrisation, one_step_equals_ddim_from_pure_noise_at_the_last_time_step) {
    const Tensor noise = normal(2);
    for (const char* prediction : {"epsilon", "v_prediction"}) {
        const Parametrisation parametrisation = stable_diffusion(prediction);
        // What the network predicts depends on the image and on the time step.
        const networks::Network model =
            network_that([](graph::Builder& ops, const networks::Inputs& in) {
                const graph::Value t = ops.sinusoid(ops.scale(in.c_noise, 1e-3), {.width = 2});
                return ops.silu(ops.add(ops.scale(in.x, 0.7), t));
            });
        const Tensor ours = sample_one_step(EdmDenoiser(model, nothing_learnt, parametrisation),
                                            noise, default_range(parametrisation), {});
        const Predictor predict = [&](const Tensor& x, std::int64_t t) {
            EXPECT_EQ(t, 999);
            const Tensor angle = at::full({x.size(0), 1}, t * 1e-3, at::kDouble);
            return at::silu(x * 0.7 +
                            at::cat({angle.cos(), angle.sin()}, 1).unsqueeze(-1).unsqueeze(-1));
        };
        EXPECT_TRUE(
            ours.allclose(sample_ddim(*parametrisation.schedule, predict, noise, 1), 1e-6, 1e-6))
            << prediction;
    }
}

TEST(DdpmParametrisation, the_weight_gives_the_error_of_the_prediction) {
    const Tensor level = at::tensor({0.03, 1.0, 14.0}, at::kDouble);
    EXPECT_TRUE(denoising_weight(level, stable_diffusion()).allclose(level.square().reciprocal()));
    EXPECT_TRUE(denoising_weight(level, stable_diffusion("v_prediction"))
                    .allclose((level.square() + 1) / level.square()));
    EXPECT_TRUE(denoising_weight(level, {}).equal(edm_loss_weight(level, 0.5)));
}

TEST(DdpmParametrisation, beyond_the_schedule_the_time_step_is_clamped) {
    const Tensor t = precondition(at::tensor({1e-4, 1e4}, at::kDouble), stable_diffusion()).c_noise;
    EXPECT_EQ(t[0].item<double>(), 0);
    EXPECT_EQ(t[1].item<double>(), 999);
}

}  // namespace atelier::diffusion
