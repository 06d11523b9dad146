#include "atelier/diffusion/noise_schedule.h"

#include <algorithm>

#include "atelier/diffusion/samplers.h"
#include "backends/tensors.h"

namespace atelier::diffusion {

namespace {

NoiseSchedule read(const nlohmann::json& config) {
    return NoiseSchedule::read(core::JsonObject(config, "config.json"));
}

nlohmann::json written(const NoiseSchedule& schedule) {
    nlohmann::json config = nlohmann::json::object();
    schedule.write(config);
    return config;
}

NoiseSchedule ddpm(const std::string& prediction) {
    return read({{"preconditioning", "ddpm"}, {"scheduler", {{"prediction_type", prediction}}}});
}

NoiseSchedule flow(double shift = 1) {
    FlowNoise kind;
    kind.shift = shift;
    return NoiseSchedule(kind);
}

std::vector<NoiseSchedule> every_kind() {
    return {
        NoiseSchedule(EdmNoise{}),
        NoiseSchedule(VpNoise{}),
        NoiseSchedule(VeNoise{}),
        ddpm("epsilon"),
        ddpm("v_prediction"),
        flow(),
        flow(3),
    };
}

Tensor seeded_normal(std::uint64_t index, std::int64_t count = 4) {
    core::RandomStream stream(5, "x", index);
    return normal_tensor(stream, {count, 2}).to(at::kDouble);
}

/// The output with which a network of this schedule denoises perfectly, from its definition.
Tensor oracle(const NoiseSchedule& schedule, const Tensor& x_0, const Tensor& z,
              const Tensor& sigma) {
    const Tensor s = expand_like(sigma, x_0);
    if (std::holds_alternative<EdmNoise>(schedule.kind)) {
        const double sd = schedule.sigma_data;
        const Tensor total = s * s + sd * sd;
        return (x_0 - sd * sd / total * (x_0 + s * z)) * total.sqrt() / (s * sd);
    }
    if (std::holds_alternative<VeNoise>(schedule.kind)) return -z;
    if (std::holds_alternative<FlowNoise>(schedule.kind)) return z - x_0;
    if (const auto* of = std::get_if<DdpmNoise>(&schedule.kind)) {
        const Tensor alpha = (1 + s * s).rsqrt();
        if (of->schedule.prediction == DdpmSchedule::Prediction::v_prediction)
            return alpha * z - alpha * s * x_0;
    }
    return z;
}

/// Knows the velocity of data N(centre, std^2) at every point x_t of a flow at times 1000 t.
struct GaussianFlow {
    double centre, std;

    Tensor velocity(const Tensor& x_t, const Tensor& c_noise) const {
        const Tensor t = expand_like(c_noise, x_t) / 1000;
        // E[x_0 | x_t] and z = (x_t - (1-t) x_0) / t, whose difference is the velocity.
        const Tensor variance = (1 - t).square() * std * std + t.square();
        const Tensor clean = centre + (1 - t) * std * std / variance * (x_t - (1 - t) * centre);
        return (x_t - clean) / t;
    }
};

/// A network of that velocity with the preconditioning of its noise schedule.
class FlowDenoiser : public Denoiser {
public:
    FlowDenoiser(const GaussianFlow& model, const NoiseSchedule& noise)
        : model_(model), noise_(noise) {}

    Tensor denoise(const Tensor& x, const Tensor& sigma, const Condition&) const override {
        const Preconditioning with = noise_.preconditioning(sigma);
        return expand_like(with.c_skip, x) * x +
               expand_like(with.c_out, x) *
                   model_.velocity(expand_like(with.c_in, x) * x, with.c_noise);
    }

private:
    GaussianFlow model_;
    NoiseSchedule noise_;
};

}  // namespace

TEST(NoiseSchedule, the_perfect_prediction_denoises_for_every_kind) {
    const Tensor x_0 = seeded_normal(0), z = seeded_normal(1);
    for (const NoiseSchedule& schedule : every_kind()) {
        for (const double level : {schedule.sigma_min, 0.7, schedule.sigma_max}) {
            const Tensor sigma = at::full({4}, level, at::kDouble);
            const Preconditioning with = schedule.preconditioning(sigma);
            const Tensor x = x_0 + expand_like(sigma, x_0) * z;
            const Tensor denoised = expand_like(with.c_skip, x) * x +
                                    expand_like(with.c_out, x) * oracle(schedule, x_0, z, sigma);
            EXPECT_TRUE(denoised.allclose(x_0, 1e-7, 1e-9))
                << schedule.kind.index() << " at " << level;
        }
    }
}

TEST(NoiseSchedule, is_read_as_it_was_written) {
    for (NoiseSchedule schedule : every_kind()) {
        schedule.sigma_data = 0.75;
        EXPECT_EQ(read(written(schedule)), schedule) << schedule.kind.index();
    }
    EXPECT_EQ(read(nlohmann::json::object()), NoiseSchedule{});
    EXPECT_EQ(written(NoiseSchedule::edm(0.7, 0.01, 20)),
              (nlohmann::json{{"sigma_data", 0.7}, {"sigma_min", 0.01}, {"sigma_max", 20.0}}));
}

TEST(NoiseSchedule, is_read_from_a_config_with_the_levels_of_its_kind) {
    const NoiseSchedule vp = read({{"preconditioning", "vp"}, {"beta_d", 10}, {"timesteps", 500}});
    EXPECT_EQ(std::get<VpNoise>(vp.kind).beta_d, 10);
    EXPECT_EQ(std::get<VpNoise>(vp.kind).timesteps, 500);
    EXPECT_NEAR(NoiseSchedule(VpNoise{}).sigma_max, 152.2, 0.1);
    EXPECT_NEAR(NoiseSchedule(VpNoise{}).sigma_min, 1e-3, 1e-5);
    EXPECT_EQ(NoiseSchedule(VeNoise{}).sigma_max, 100);
    EXPECT_EQ(read({{"sigma_max", 40}}).sigma_max, 40);
    core::expect_contains(core::error_of([] { read({{"preconditioning", "cosine"}}); }),
                          "known are edm, vp, ve, ddpm and flow");
    core::expect_contains(core::error_of([] { read({{"sigma_min", 80}}); }),
                          "config.json: sigma_min must be below sigma_max");
}

TEST(NoiseSchedule, students_start_where_their_kind_says) {
    for (const NoiseSchedule& schedule : every_kind()) {
        const Tensor sigma = at::full({1}, schedule.sigma_max, at::kDouble);
        const double input =
            (schedule.preconditioning(sigma).c_in * schedule.initial_noise_scale()).item<double>();
        const bool from_pure_noise = std::holds_alternative<DdpmNoise>(schedule.kind) ||
                                     std::holds_alternative<FlowNoise>(schedule.kind);
        if (from_pure_noise) {
            EXPECT_NEAR(input, 1, 1e-12);
        } else {
            EXPECT_EQ(schedule.initial_noise_scale(), schedule.sigma_max);
        }
    }
}

TEST(FlowNoise, hands_the_network_its_own_x_t_and_time) {
    const NoiseSchedule schedule = flow();
    for (const double t : {0.001, 0.25, 0.5, 0.999}) {
        const Tensor sigma = at::full({4}, t / (1 - t), at::kDouble), x_0 = seeded_normal(0),
                     z = seeded_normal(1);
        const Preconditioning with = schedule.preconditioning(sigma);
        EXPECT_NEAR(with.c_noise[0].item<double>(), 1000 * t, 1e-9);
        EXPECT_TRUE((expand_like(with.c_in, x_0) * (x_0 + expand_like(sigma, x_0) * z))
                        .allclose((1 - t) * x_0 + t * z, 1e-9, 1e-12));
    }
}

TEST(FlowNoise, the_weight_gives_the_error_of_the_velocity) {
    // D = x_t - t v, so |D - x_0|^2 = t^2 |v - (z - x_0)|^2.
    const Tensor t = at::tensor({0.01, 0.5, 0.99}, at::kDouble);
    EXPECT_TRUE(flow().loss_weight(t / (1 - t)).allclose(t.square().reciprocal()));
}

TEST(FlowNoise, has_levels_evenly_spaced_in_time_and_shifted) {
    for (const double shift : {1.0, 3.0}) {
        const NoiseSchedule schedule = flow(shift);
        const auto rising = schedule.matching_levels();
        ASSERT_EQ(rising.size(), 1000U);
        EXPECT_TRUE(std::ranges::is_sorted(rising));
        const auto falling = schedule.sampling_levels(28);
        ASSERT_EQ(falling.size(), 29U);
        EXPECT_NEAR(falling.front(), schedule.sigma_max, 1e-6);
        EXPECT_NEAR(falling[27], schedule.sigma_min, 1e-12);
        EXPECT_EQ(falling.back(), 0);
        for (const auto i : {std::size_t{0}, std::size_t{250}, std::size_t{999}}) {
            const double t = 0.001 + 0.998 * static_cast<double>(i) / 999;
            const double shifted = shift * t / (1 + (shift - 1) * t);  // Esser et al. 2024
            EXPECT_NEAR(rising[i] / (1 + rising[i]), shifted, 1e-9);
        }
    }
}

TEST(FlowNoise, trains_at_logit_normal_times) {
    NoiseSchedule schedule = flow();
    core::RandomStream stream(1, "t");
    const Tensor sigma = schedule.training_levels(stream, 20000).to(at::kDouble);
    const Tensor logit = (sigma / (1 + sigma)).logit();
    EXPECT_NEAR(logit.mean().item<double>(), 0, 0.03);
    EXPECT_NEAR(logit.std().item<double>(), 1, 0.02);
}

TEST(FlowNoise, ddim_is_eulers_method_along_the_velocity) {
    const GaussianFlow model{0.4, 0.5};
    const NoiseSchedule schedule = flow(3);
    const FlowDenoiser denoiser(model, schedule);
    const auto levels = schedule.sampling_levels(20);
    const Tensor z = seeded_normal(3);
    const auto time = [](double sigma) { return sigma / (1 + sigma); };
    Tensor x_t = z * time(levels.front());  // what sample_ddim begins with, times 1 - t
    for (std::size_t i = 0; i + 1 < levels.size(); ++i) {
        const double t = time(levels[i]), next = time(levels[i + 1]);
        x_t = x_t + (next - t) * model.velocity(x_t, at::full({4}, 1000 * t, at::kDouble));
    }
    EXPECT_LT(backends::relative_distance(sample_ddim(denoiser, z, levels, {}), x_t), 1e-9);
}

TEST(FlowNoise, sampling_converges_to_the_exact_flow_of_a_gaussian) {
    const double centre = 0.4, std = 0.5;
    const GaussianFlow model{centre, std};
    const NoiseSchedule schedule = flow();
    const FlowDenoiser denoiser(model, schedule);
    const Tensor z = seeded_normal(4, 64);
    // x - centre grows as sqrt(std^2 + sigma^2) along the probability-flow ODE.
    const double high = schedule.sigma_max;
    const Tensor exact = centre + (z * high - centre) * std / std::sqrt(std * std + high * high);
    const auto error = [&](std::int64_t steps) {
        return backends::relative_distance(
            sample_heun(denoiser, z, schedule.sampling_levels(steps), {}), exact);
    };
    EXPECT_LT(error(64), 1e-2);
    EXPECT_LT(error(256), error(64) / 4);
    EXPECT_LT(backends::relative_distance(sample_one_step(denoiser, z, schedule, {}),
                                          at::full_like(z, centre)),
              2e-2);  // one step from pure noise is the data's mean
}

}  // namespace atelier::diffusion
