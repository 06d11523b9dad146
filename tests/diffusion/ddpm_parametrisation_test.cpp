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

/// A network that predicts `f` of its inputs, which it records.
struct Predicts {
    explicit Predicts(std::function<Tensor(const Tensor& x, const Tensor& t)> f) {
        network.data_shape = {2, 2, 2};
        network.forward = [this, f](graph::Ops&, const networks::Inputs& in) {
            x = backends::tensor_of(in.x), t = backends::tensor_of(in.c_noise);
            return networks::Outputs{f(x, t), in.x};
        };
    }
    networks::Network network;
    Tensor x, t;
};

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
        Predicts model([&](const Tensor&, const Tensor&) {
            return v_prediction ? alpha * noise - sigma * clean : noise;
        });
        const EdmDenoiser denoiser(model.network, nothing_learnt, parametrisation);
        const Tensor level = at::full({3}, sigma / alpha, at::kDouble);
        EXPECT_TRUE(denoiser.denoise(clean + expand_like(level, clean) * noise, level, {})
                        .allclose(clean, 1e-9, 1e-9))
            << prediction;
        EXPECT_TRUE(model.x.allclose(alpha * clean + sigma * noise, 1e-9, 1e-9));
        EXPECT_NEAR(model.t[0].item<double>(), 400, 1e-6);
    }
}

TEST(DdpmParametrisation, one_step_equals_ddim_from_pure_noise_at_the_last_time_step) {
    const Tensor noise = normal(2);
    for (const char* prediction : {"epsilon", "v_prediction"}) {
        const Parametrisation parametrisation = stable_diffusion(prediction);
        const auto of = [](const Tensor& x, const Tensor& t) {
            return (x * 0.7 + expand_like(t, x) / 1000).sin();
        };
        Predicts model(of);
        const Tensor ours =
            sample_one_step(EdmDenoiser(model.network, nothing_learnt, parametrisation), noise,
                            default_range(parametrisation), {});
        EXPECT_TRUE(model.x.allclose(noise));
        const Predictor predict = [&](const Tensor& x, std::int64_t t) {
            return of(x, at::full({x.size(0)}, static_cast<double>(t), at::kDouble));
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
